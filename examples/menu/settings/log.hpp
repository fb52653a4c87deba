// log.hpp - a file of all messages, one line each.
//
// SPDX-License-Identifier: MIT

#ifndef MENU_LOG_HPP
#define MENU_LOG_HPP

#include "../terminal/text.hpp"
#include "folder.hpp"

#include <algorithm>
#include <cerrno>
#include <deque>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#ifdef _WIN32
#include "../terminal/windows_text.hpp"
#else
#include <fcntl.h>
#include <unistd.h>
#endif

namespace menu {

/// A file that several threads and programs append to at once: the system puts each write at the
/// current end, and does not mix them.
class appended_file {
public:
    appended_file() = default;
    appended_file(const appended_file&) = delete;
    appended_file& operator=(const appended_file&) = delete;

#ifdef _WIN32
    ~appended_file() { CloseHandle(handle_); }

    std::error_code open(const std::string& path) {
        handle_ = CreateFileW(to_wide(path).c_str(), FILE_APPEND_DATA,
                              FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                              OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, nullptr);
        return is_open() ? std::error_code() : last_error();
    }
    bool is_open() const { return handle_ != INVALID_HANDLE_VALUE; }

    std::error_code append(std::string_view text, std::size_t& written) {
        DWORD size = 0;
        const BOOL is_written =
            WriteFile(handle_, text.data(), static_cast<DWORD>(text.size()), &size, nullptr);
        written = size;
        return is_written != 0 ? std::error_code() : last_error();
    }

private:
    static std::error_code last_error() {
        return {static_cast<int>(GetLastError()), std::system_category()};
    }

    HANDLE handle_ = INVALID_HANDLE_VALUE;
#else
    ~appended_file() {
        if (is_open()) ::close(handle_);
    }

    std::error_code open(const std::string& path) {
        handle_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        return is_open() ? std::error_code() : last_error();
    }
    bool is_open() const { return handle_ >= 0; }

    std::error_code append(std::string_view text, std::size_t& written) {
        const auto size = ::write(handle_, text.data(), text.size());
        written = size < 0 ? 0 : static_cast<std::size_t>(size);
        return size < 0 ? last_error() : std::error_code();
    }

private:
    static std::error_code last_error() { return {errno, std::generic_category()}; }

    int handle_ = -1;
#endif
};

/// The log. Thread-safe.
class chat_log {
public:
    std::error_code open(const std::string& path) { return path_ = path, file_.open(path); }

    /// The last lines that `is_wanted` chooses, in order.
    std::vector<std::string> last(std::size_t count,
                                  const std::function<bool(const std::string&)>& is_wanted) const {
        constexpr std::streamoff max_read = 1024 * 1024;  // of a file of any size
        std::deque<std::string> found;
        std::ifstream file(native_path(path_), std::ios::binary | std::ios::ate);
        const auto size = static_cast<std::streamoff>(file.tellg());
        file.seekg(std::max<std::streamoff>(size - max_read, 0));
        std::string line;
        if (size > max_read) std::getline(file, line);  // the rest of a line
        while (std::getline(file, line)) {
            if (is_wanted(line)) found.push_back(line);
            if (found.size() > count) found.pop_front();
        }
        return {found.begin(), found.end()};
    }

    /// Appends a line with a timestamp, if the log is open. Returns an error the first time only.
    std::error_code add(const std::string& line) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!file_.is_open()) return {};
        const auto error =
            append((torn_ ? "\n" : "") + now("%Y-%m-%d %H:%M:%S ") + visible(line) + '\n');
        const bool first = error && !failed_;
        failed_ = failed_ || error;
        return first ? error : std::error_code();
    }

private:
    /// In one write, if the system can.
    std::error_code append(std::string_view text) {
        std::error_code error;
        while (!error && !text.empty()) {
            std::size_t written = 0;
            error = file_.append(text, written);
            text.remove_prefix(written);
            if (written > 0) torn_ = !text.empty();
        }
        return error;
    }

    std::string path_;
    std::mutex mutex_;  // guards all below
    appended_file file_;
    bool torn_ = false;    // the file's last line is incomplete
    bool failed_ = false;  // and that has been reported
};

}  // namespace menu

#endif  // MENU_LOG_HPP
