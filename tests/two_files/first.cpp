// Includes the header in two source files, next to a third with the implementation: they link only
// if nothing is defined twice, and agree only if both see the same definitions.
//
// SPDX-License-Identifier: MIT

#include "p2pchat.hpp"
#include "p2pchat.hpp"  // a second inclusion does no harm
#include "two_files.hpp"

#include <doctest/doctest.h>

TEST_CASE("an endpoint made in another source file is the same endpoint here") {
    CHECK(two_files::from_second_file() == p2pchat::endpoint{"10.18.1.7", 5000});
}

TEST_CASE("there is one error category for the whole program") {
    CHECK(two_files::category_of_second_file() == &p2pchat::category());
    CHECK(p2pchat::make_error_code(p2pchat::errc::bad_port).category() == p2pchat::category());
}
