/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPW_SYNTHETIC_H
#define SPW_SYNTHETIC_H
/* Traces of patterns whose answer is known. They are the same in each run. */
#include "trace.h"

/* Names, ended by NULL. */
extern const char *const spw__synthetic_names[];

/* False: no such name, or no memory. To be freed with spw__trace_free(). */
bool spw__synthetic(const char *name, struct spw_trace *t);
#endif
