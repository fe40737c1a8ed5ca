/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which page goes next.
 *
 * There are no accessed bits in user space, so nothing is learnt of a page while it is resident, and an order by last
 * use cannot be kept. What can be seen is that a page comes back, and how soon. So there are two queues, as in 2Q
 * (Johnson and Shasha, VLDB 1994) and S3-FIFO (Yang et al., SOSP 2023): a page that is new, or was out for long, goes
 * through a short one (probation); one that comes back within as many evictions as there are resident pages has proved
 * that it is used and goes through the long one (main). A scan passes through probation and drives nothing out of main.
 *
 * A queue is a ring as large as the space has positions, so that it is never full; what lies behind its end is given
 * back. A page is in it once at most (QUEUED): one that is discarded stays, and is passed over when its turn comes.
 */
#include "host/library/library.h"
#include "platform/platform.h"

#define PROBATION_PART 8u                            /* of what is queued, when main gives first */
#define EPOCHS         8u                            /* in which all that is resident is taken out once */
#define ENTRIES_A_PAGE (SPW_PAGE / sizeof(uint32_t)) /* of a ring */

static uint64_t ring_size(const struct spw_space *s)
{
	return (uint64_t)s->clusters * SPW_CLUSTER;
}

/* The next of an end, which moves on by one. Written under the lock, and read without. */
static uint64_t take_place(uint64_t *end)
{
	uint64_t at = *end;

	__atomic_store_n(end, at + 1, __ATOMIC_RELAXED);
	return at;
}

uint64_t spw__queue_bytes(const struct spw_space *s)
{
	const struct spw__queue *q[] = {&s->probation, &s->main};
	uint64_t n = 0;

	for (unsigned i = 0; i < 2; i++)
		n += __atomic_load_n(&q[i]->head, __ATOMIC_RELAXED) - __atomic_load_n(&q[i]->tail, __ATOMIC_RELAXED);
	return n * sizeof(uint32_t);
}

void spw__queue_push(struct spw_space *s, const uint32_t *o, const uint8_t *state, unsigned n)
{
	spw__spin_lock(&s->queue_lock);
	for (unsigned i = 0; i < n; i++) {
		struct spw__queue *q = state[i] & SPW__MAIN ? &s->main : &s->probation;

		if (!(state[i] & SPW__QUEUED))
			q->at[take_place(&q->head) % ring_size(s)] = o[i];
	}
	spw__spin_unlock(&s->queue_lock);
}

static uint64_t length(const struct spw__queue *q)
{
	return q->head - q->tail;
}

static void count_epochs(struct spw_space *s, unsigned taken)
{
	s->epoch_taken += taken;
	if (s->epoch_taken * EPOCHS < __atomic_load_n(&s->resident, __ATOMIC_RELAXED))
		return;
	s->epoch_taken = 0;
	__atomic_store_n(&s->epoch, s->epoch + 1, __ATOMIC_RELAXED);
}

unsigned spw__queue_pop(struct spw_space *s, uint32_t *o, unsigned max)
{
	unsigned n = 0;

	spw__spin_lock(&s->queue_lock);
	while (n < max && length(&s->probation) + length(&s->main)) {
		bool main = length(&s->main) &&
			    length(&s->probation) * PROBATION_PART < length(&s->probation) + length(&s->main);
		struct spw__queue *q = main || !length(&s->probation) ? &s->main : &s->probation;

		o[n++] = q->at[take_place(&q->tail) % ring_size(s)];
		if (q->tail % ENTRIES_A_PAGE == 0)
			spw__plat_discard(&q->at[(q->tail - ENTRIES_A_PAGE) % ring_size(s)], SPW_PAGE);
	}
	count_epochs(s, n);
	spw__spin_unlock(&s->queue_lock);
	return n;
}

bool spw__age_recent(const struct spw_space *s, uint32_t o)
{
	return (uint8_t)(__atomic_load_n(&s->epoch, __ATOMIC_RELAXED) - s->age[o]) <= EPOCHS;
}

void spw__age_mark(struct spw_space *s, uint32_t o)
{
	s->age[o] = __atomic_load_n(&s->epoch, __ATOMIC_RELAXED);
}
