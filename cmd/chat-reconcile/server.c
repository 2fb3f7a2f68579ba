/* GET with libcurl. No proxy, no redirects: the token is for this server alone. */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/chat-reconcile/server.h"
#include "cmd/chat-reconcile/tool.h"
#include "crypto/keys.h"
#include "util/clock.h"
#include "util/units.h"

#define CONNECT_S 5L
#define SILENCE_S 30L /* without a byte */
#define TOKEN_S   (24u * 3600)
#define TOKEN_MAX 4096u
#define PAUSE_MS  300
#define OPERATOR  1u /* whom a token of our own names; the role is what counts */

struct server_conn {
    CURL *curl;
    struct curl_slist *headers;
    char *base;
    struct buf answer;
    char why[CURL_ERROR_SIZE];
};

static size_t take(char *p, size_t size, size_t n, void *arg)
{
    struct buf *b = arg;
    buf_add(b, p, size * n);
    return b->failed ? 0 : size * n;
}

static int still_wanted(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)arg, (void)a, (void)b, (void)c, (void)d;
    return tool_interrupted;
}

static int read_token(struct buf *to, const char *path, struct err_ctx *err)
{
    char line[TOKEN_MAX];
    FILE *f = fopen(path, "re");
    if (!f)
        return err_errno(err, "%s", path);
    size_t n = fgets(line, sizeof line, f) ? strcspn(line, " \t\r\n") : 0;
    fclose(f);
    if (!n || n == sizeof line - 1 ||
        strspn(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") < n)
        return err_set(err, ERR_INVALID, "%s: its first line is no token", path);
    buf_add(to, line, n);
    return 0;
}

static int mint_token(struct buf *to, const char *dir, struct err_ctx *err)
{
    struct keys keys;
    uint64_t now = clock_wall_us() / 1000000;
    int rc = keys_open(&keys, dir, false, err);
    if (rc)
        return err_prefix(err, "no token (--token FILE), and no keys to make one (--keys DIR): ");
    rc = token_mint(
        &keys,
        &(struct token){.user = OPERATOR, .role = ROLE_OPERATOR, .issued_s = now, .expires_s = now + TOKEN_S},
        to);
    keys_wipe(&keys);
    return rc ? err_set(err, rc, "cannot make a token") : 0;
}

static int set_up(struct server_conn *c, const struct opt_set *o, struct err_ctx *err)
{
    struct buf header = BUF_INIT(2 * TOKEN_MAX);
    buf_str(&header, "Authorization: Bearer ");
    int rc = opt_string(o, "token") ? read_token(&header, opt_string(o, "token"), err)
                                    : mint_token(&header, opt_string(o, "keys"), err);
    if (!rc && (!(c->headers = curl_slist_append(NULL, buf_cstr(&header))) || !(c->curl = curl_easy_init())))
        rc = err_set(err, ERR_NOMEM, "%s: out of memory", c->base);
    buf_release(&header);
    if (rc)
        return rc;
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_PROXY, "");
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->why);
    curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, CONNECT_S);
    curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_TIME, SILENCE_S);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &c->answer);
    curl_easy_setopt(c->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c->curl, CURLOPT_XFERINFOFUNCTION, still_wanted);
    return 0;
}

int server_conn_open(struct server_conn **out, const char *base, const struct opt_set *o, struct err_ctx *err)
{
    size_t n = strlen(base);
    bool tls = !strncmp(base, "https://", 8);
    if ((!tls && strncmp(base, "http://", 7) != 0) || !base[tls ? 8 : 7])
        return err_set(err, ERR_USAGE, "server:%s: a server is server:http://HOST:PORT", base);
    while (base[n - 1] == '/')
        n--;
    struct server_conn *c = calloc(1, sizeof *c);
    if (!c || !(c->base = strndup(base, n))) {
        free(c);
        return err_set(err, ERR_NOMEM, "server:%s: out of memory", base);
    }
    c->answer = (struct buf)BUF_INIT(SERVER_ANSWER_MAX);
    int rc = set_up(c, o, err);
    if (rc) {
        err_prefix(err, "server:%s: ", base);
        server_conn_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void server_conn_close(struct server_conn *c)
{
    if (!c)
        return;
    if (c->curl)
        curl_easy_cleanup(c->curl);
    curl_slist_free_all(c->headers);
    buf_release(&c->answer);
    free(c->base);
    free(c);
}

/* What the server says of an error: {"error":{"code":...,"text":...}}. */
static void its_words(const struct server_conn *c, char out[160])
{
    json_t *j = json_loadb(c->answer.data, c->answer.len, 0, NULL);
    const json_t *e = json_object_get(j, "error");
    const char *code = json_string_value(json_object_get(e, "code")),
               *text = json_string_value(json_object_get(e, "text"));
    snprintf(out, 160, "%s%.30s%s%.100s%s", code ? " (" : "", code ? code : "", text && code ? ": " : "",
             text && code ? text : "", code ? ")" : "");
    json_decref(j);
}

static int judge(const struct server_conn *c, const char *path, long status, struct err_ctx *err)
{
    char words[160];
    its_words(c, words);
    if (status == 401)
        return err_set(err, ERR_PERM, "%s%s: the server does not take this token%s: are these its keys?",
                       c->base, path, words);
    if (status == 403)
        return err_set(err, ERR_PERM, "%s%s: the token is no operator's%s", c->base, path, words);
    if (status == 404)
        return err_set(err, ERR_NOTFOUND, "%s%s: there is no such page%s: is it a chatd-server?", c->base,
                       path, words);
    return err_set(err, status >= 500 ? ERR_UNAVAILABLE : ERR_CORRUPT, "%s%s: the server answers %ld%s",
                   c->base, path, status, words);
}

static int once(struct server_conn *c, const char *path, bool *again, struct err_ctx *err)
{
    long status = 0;
    buf_reset(&c->answer);
    c->why[0] = 0;
    CURLcode rc = curl_easy_perform(c->curl);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    *again = rc != CURLE_OK || status >= 500;
    if (rc == CURLE_ABORTED_BY_CALLBACK) {
        *again = false;
        return err_set(err, ERR_INTERRUPTED, "interrupted");
    }
    if (c->answer.failed) {
        *again = false;
        return err_set(err, ERR_LIMIT, "%s%s: the answer is larger than %u MiB", c->base, path,
                       SERVER_ANSWER_MAX >> 20);
    }
    if (rc != CURLE_OK)
        return err_set(err, ERR_UNAVAILABLE, "%s%s: %s", c->base, path,
                       c->why[0] ? c->why : curl_easy_strerror(rc));
    return status == 200 ? 0 : judge(c, path, status, err);
}

int server_get(struct server_conn *c, const char *path, json_t **out, struct err_ctx *err)
{
    char url[4400];
    bool again = false;
    json_error_t bad;
    if (snprintf(url, sizeof url, "%s%s", c->base, path) >= (int)sizeof url)
        return err_set(err, ERR_LIMIT, "%s: the URL is too long", c->base);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    int rc = once(c, path, &again, err);
    if (rc && again) {
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
        rc = once(c, path, &again, err);
    }
    if (rc)
        return rc;
    *out = json_loadb(c->answer.data, c->answer.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &bad);
    if (json_is_object(*out))
        return 0;
    json_decref(*out);
    *out = NULL;
    return err_set(err, ERR_CORRUPT, "%s: offset %d of the answer: no JSON object: is it a chatd-server?",
                   url, bad.position);
}

bool server_u64(const json_t *object, const char *name, uint64_t *out)
{
    const json_t *j = json_object_get(object, name);
    const char *text = json_string_value(j);
    if (text)
        return units_u64(out, text, NULL) == 0;
    *out = (uint64_t)json_integer_value(j);
    return json_is_integer(j) && json_integer_value(j) >= 0;
}
