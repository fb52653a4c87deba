// Tests of the platform's file functions. Only the keys are kept in files, and only builds with
// OpenSSL have keys: here the functions themselves are called, on every system.
//
// SPDX-License-Identifier: MIT

#define P2PCHAT_IMPLEMENTATION
#include "p2pchat.hpp"

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "files.hpp"

using namespace p2pchat::detail;

namespace {

std::string read(const std::string& file) {
    std::string bytes = "what was there before";
    bool ours_alone = false;
    CHECK_FALSE(os::read_file(file, bytes, ours_alone));
    CHECK(ours_alone);
    return bytes;
}

/// A file name as the library takes it: in UTF-8 on every system.
std::string name_in(const support::folder& here, const char* name) {
    return (std::filesystem::path(here.path()) / std::filesystem::u8path(name)).u8string();
}

}  // namespace

TEST_CASE("a file is read as it was written, byte for byte") {
    const support::folder here;
    const std::string file = name_in(here, "cl\u00e9s \u94a5\u5319");
    std::string bytes;
    for (int i = 0; i < 20000; ++i) bytes.append(1, static_cast<char>(i * 7)).append("\r\n\x1a");
    REQUIRE_FALSE(os::create_private(file, bytes));
    CHECK(std::filesystem::file_size(std::filesystem::u8path(file)) == bytes.size());
    CHECK(read(file) == bytes);
    REQUIRE_FALSE(os::write_file(file, os::file_use::append, "\n1\r\n2\n"));
    CHECK(read(file) == bytes + "\n1\r\n2\n");
}

TEST_CASE("a file that cannot be read or written is an error that says why") {
    const support::folder here;
    const std::string file = here.file("some");
    std::string bytes;
    bool ours_alone = false;
    CHECK(os::read_file(file, bytes, ours_alone) == std::errc::no_such_file_or_directory);
    CHECK(os::read_file(here.path(), bytes, ours_alone));
    CHECK(os::write_file(here.path(), os::file_use::append, "text"));
    CHECK(os::create_private(here.file("no folder") + "/some", "text"));

    constexpr std::size_t most = 16 * 1024 * 1024;
    REQUIRE_FALSE(os::write_file(file, os::file_use::append, std::string(most + 1, ' ')));
    CHECK(os::read_file(file, bytes, ours_alone) == std::errc::file_too_large);
}

TEST_CASE("a private file is written whole, and never over another") {
    const support::folder here;
    const std::string file = here.file("key");
    REQUIRE_FALSE(os::create_private(file, "first"));
    CHECK(os::create_private(file, "second") == std::errc::file_exists);
    CHECK(read(file) == "first");
    const std::filesystem::directory_iterator all(here.path());
    CHECK(std::distance(begin(all), end(all)) == 1);  // no temporary file is left
}

#if !defined(_WIN32)

// Wine appends in two steps, so that this cannot be shown there for Windows.
TEST_CASE("lines that are appended at the same time do not mix") {
    const support::folder here;
    const std::string file = here.file("lines");
    constexpr std::size_t writers = 4, each = 200;
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < writers; ++i)
        threads.emplace_back([&, i] {
            const std::string line = std::string(100 + i, static_cast<char>('a' + i)) + '\n';
            for (std::size_t n = 0; n < each; ++n)
                if (os::write_file(file, os::file_use::append, line)) return;
        });
    for (auto& one : threads) one.join();
    std::vector<std::size_t> whole(writers);
    std::istringstream lines(read(file));
    for (std::string line; std::getline(lines, line);)
        for (std::size_t i = 0; i < writers; ++i)
            whole[i] += line == std::string(100 + i, static_cast<char>('a' + i)) ? 1u : 0u;
    CHECK(whole == std::vector<std::size_t>(writers, each));
}

TEST_CASE("a file that others may read is not private") {
    const support::folder here;
    const std::string file = here.file("key");
    REQUIRE_FALSE(os::create_private(file, "key"));
    using std::filesystem::perms;
    std::filesystem::permissions(file, perms::group_read, std::filesystem::perm_options::add);
    std::string bytes;
    bool ours_alone = true;
    REQUIRE_FALSE(os::read_file(file, bytes, ours_alone));
    CHECK_FALSE(ours_alone);
}

#endif
