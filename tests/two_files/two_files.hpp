// The functions that the two source files share.
//
// SPDX-License-Identifier: MIT

#pragma once

#include "p2pchat.hpp"

namespace two_files {

p2pchat::endpoint from_second_file();
const std::error_category* category_of_second_file();

}  // namespace two_files
