/* SHA-1 (FIPS 180-4), for Sec-WebSocket-Accept only (RFC 6455 section 4.2.2): no security rests on it. */
#ifndef WIRE_SHA1_H
#define WIRE_SHA1_H

#include <stddef.h>
#include <stdint.h>

void sha1(uint8_t out[20], const void *p, size_t n);

#endif
