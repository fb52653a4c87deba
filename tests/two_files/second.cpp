// The second of two source files that include the header: see first.cpp.
//
// SPDX-License-Identifier: MIT

#include "two_files.hpp"

namespace two_files {

p2pchat::endpoint from_second_file() { return {"10.18.1.7", 5000}; }

const std::error_category* category_of_second_file() { return &p2pchat::category(); }

}  // namespace two_files
