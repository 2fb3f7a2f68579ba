/* Names that came from outside (file names, headers of files) as text that every format can take: valid
 * UTF-8 (RFC 3629) on one line. */
#ifndef UTIL_TEXT_H
#define UTIL_TEXT_H

#include <stddef.h>

/* Copies `in` into out[size] with a NUL, cut at a whole character: control characters become spaces, bytes
 * that are no UTF-8 become '?'. Returns out. size >= 1. */
char *text_clean(char *out, size_t size, const char *in);

#endif
