/* The charts of the HTML page. Each appends one inline <svg>, 460 units wide so that it stays readable on a
 * phone; colours come from the page's style sheet, which knows light and dark. */
#ifndef REPORT_HTML_IMPL_H
#define REPORT_HTML_IMPL_H

#include "report/report.h"

/* Verdicts by network; losses are drawn on a scale of their own, `loss_scale` being the full bar. */
void svg_funnel(struct buf *out, const struct report_run *r, double loss_scale);
/* The largest share of any lost_... verdict or not_observed, at least 0.1 %. */
double svg_loss_scale(const struct report_run *const *runs, uint32_t n);
/* Arrival curves of all runs; share axis from `low` to 1, time axis logarithmic. */
void svg_curves(struct buf *out, const struct report_run *const *runs, uint32_t n, double low);
/* Disconnects per connected hour by network. */
void svg_disconnects(struct buf *out, const struct report_run *r);
/* "" or the one-letter class of a verdict's colour. */
const char *verdict_class(const char *verdict);

#endif
