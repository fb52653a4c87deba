// The discovery of a Zyre node: announces itself by CZMQ's beacon as ZRE does (RFC 36: 22 bytes to
// UDP port 5670 each second) and prints each other node that it hears, once, until it is killed.
//
// SPDX-License-Identifier: MIT

#include <czmq.h>

#include <cstdio>
#include <cstring>
#include <set>
#include <string>

int main() {
    unsigned char beacon[22] = {'Z', 'R', 'E', 1};
    zuuid_t* id = zuuid_new();
    std::memcpy(beacon + 4, zuuid_data(id), 16);
    zuuid_destroy(&id);
    zactor_t* const actor = zactor_new(zbeacon, nullptr);
    zsock_send(actor, "si", "CONFIGURE", 5670);
    char* own_address = zstr_recv(actor);
    zstr_free(&own_address);
    zsock_send(actor, "sbi", "PUBLISH", beacon, sizeof beacon, 1000);
    zsock_send(actor, "sb", "SUBSCRIBE", "ZRE", std::size_t{3});
    std::set<std::string> found;
    for (char* address = zstr_recv(actor); address; address = zstr_recv(actor)) {
        zframe_t* heard = zframe_recv(actor);
        zframe_destroy(&heard);
        if (found.insert(address).second) std::printf("found %s\n", address);
        std::fflush(stdout);
        zstr_free(&address);
    }
}
