// Runs a fuzz target over the files of its corpus, so that what was once found stays fixed. Linked
// with the target and with doctest's main; P2PCHAT_CORPUS says where the files are.
//
// SPDX-License-Identifier: MIT

#include "fuzz.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace {

std::string contents(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void run(const std::string& input) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
}

}  // namespace

TEST_CASE("every input that was worth keeping goes well") {
    const char* const corpus = std::getenv("P2PCHAT_CORPUS");
    REQUIRE_MESSAGE(corpus, "P2PCHAT_CORPUS names a directory");
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
        CAPTURE(entry.path().string());
        run(contents(entry.path()));
        ++count;
    }
    CHECK(count > 0);
    run("");
}
