/* What a phone may tell its own link, in band: a UDP datagram to NETEM_CONTROL_ADDR, port NETEM_CONTROL_PORT,
 * from the phone's address, taken by the link in order with that radio's data. And what a link tells a phone,
 * as its modem would: a datagram from there to NETEM_CONTROL_PORT of the phone's address, which it may
 * ignore.
 */
#ifndef NETEM_CONTROL_H
#define NETEM_CONTROL_H

#include <stdint.h>

#define NETEM_CONTROL_ADDR 0xC613FFFEu /* 198.19.255.254 */
#define NETEM_CONTROL_PORT 9

enum netem_control_op {
    NETEM_DETACH = 1, /* this address is gone: everything to and from it is dropped (reason DETACHED) */
    NETEM_ATTACH = 2, /* it is back, with an empty queue and no NAT mappings */
    /* To the phone, at the end of a handover that took its address: as seen from the far side the phone has
     * another address now, and every NAT mapping of the old one is gone. The inner address goes on working,
     * for new connections; a phone that behaves as one does closes its sockets, or moves them elsewhere. */
    NETEM_MOVED = 3,
};
struct netem_control {
    char magic[4]; /* "nctl" */
    uint8_t op, zero[3];
};

#endif
