#include <string.h>

#include "netem/proxy/follow_impl.h"

void search_reset(struct search *s)
{
    memset(s, 0, sizeof *s);
}

/* Knuth-Morris-Pratt, with the state kept between pieces. */
static bool find(uint8_t *state, const uint8_t *needle, const uint8_t *back, size_t len, bool fold,
                 const uint8_t *p, size_t n)
{
    size_t k = *state;
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        uint8_t c = p[i];
        if (fold && c >= 'A' && c <= 'F')
            c |= 0x20; /* hexadecimal digits in either case */
        while (k && c != needle[k])
            k = back[k - 1];
        k += c == needle[k];
        if (k == len) {
            found = true;
            k = back[k - 1];
        }
    }
    *state = (uint8_t)k;
    return found;
}

/* "id" : "xxxxxxxx-xxxx-..." with blanks around the colon: the id that a log line can name. */
static void sniff(struct search *s, const uint8_t *p, size_t n)
{
    enum { COLON = 4, QUOTE = 5, VALUE = 6 };
    static const char key[] = "\"id\"";
    for (size_t i = 0; i < n && !s->has_id; i++) {
        uint8_t c = p[i];
        if (s->key_at < COLON) {
            s->key_at = c == key[s->key_at] ? (uint8_t)(s->key_at + 1) : c == '"';
        } else if (s->key_at < VALUE) {
            if (c == (s->key_at == COLON ? ':' : '"'))
                s->key_at++;
            else if (c != ' ')
                s->key_at = c == '"';
        } else {
            s->key[s->key_at++ - VALUE] = (char)c;
            if (c == '"')
                s->key_at = 1;
            else if (s->key_at == VALUE + ID_TEXT) {
                s->has_id = id_parse(&s->id, s->key, ID_TEXT) == 0;
                s->key_at = 0;
            }
        }
    }
}

uint32_t search_feed(struct search *s, const struct proxy_rules *r, bool binary, const uint8_t *p, size_t n)
{
    uint32_t found = 0;
    for (uint32_t left = r->used; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        const struct proxy_toxic *t = r->toxic[i];
        if (!t->has_id)
            continue;
        bool hit = find(&s->text_at[i], (const uint8_t *)t->id_text, t->text_back, ID_TEXT, true, p, n);
        if (binary)
            hit |= find(&s->raw_at[i], t->id.b, t->raw_back, ID_BYTES, false, p, n);
        found |= (uint32_t)hit << i;
    }
    if (!binary)
        sniff(s, p, n);
    return found;
}
