// Files that a test makes, and what is in them.
//
// SPDX-License-Identifier: MIT

#ifndef P2PCHAT_TESTS_FILES_HPP
#define P2PCHAT_TESTS_FILES_HPP

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

namespace support {

/// A folder of its own, gone at the end.
class folder {
public:
    folder() {
        std::random_device random;
        do path_ = std::filesystem::temp_directory_path() / ("p2pchat-" + std::to_string(random()));
        while (!std::filesystem::create_directory(path_));  // it was there already
    }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    ~folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }

    std::string path() const { return path_.string(); }
    std::string file(const std::string& name) const { return (path_ / name).string(); }

private:
    std::filesystem::path path_;
};

/// Nothing, where there is no such file.
inline std::string content(const std::string& file) {
    std::ostringstream all;
    all << std::ifstream(file, std::ios::binary).rdbuf();
    return all.str();
}

}  // namespace support

#endif  // P2PCHAT_TESTS_FILES_HPP
