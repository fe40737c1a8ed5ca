/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SPW_SPACE_HOOKS_H
#define SPW_SPACE_HOOKS_H
/*
 * The places at which another thread can overtake this one, for tests that drive threads to one exact order. Only their
 * build of the space defines SPW_TEST_HOOKS, and then spw__hook() is the test's; in any other nothing is compiled.
 */
#include "space/entry.h"

enum spw__point {
	SPW__WORD_SEEN,       /* a word that is not locked was read, to lock it; of any entry */
	SPW__STORE_READY,     /* the object is made, the entry not locked yet */
	SPW__PUT_CHOSEN,      /* entry locked: the tier took objects when it was asked, nothing is put yet */
	SPW__REPLACED,        /* the word is new, the old object not freed yet */
	SPW__LOAD_PEEKED,     /* the word was read, nothing else is */
	SPW__LOAD_READ,       /* a batch slot was read, the word not looked at again */
	SPW__MOVE_MARKED,     /* the entry is marked as moving; its segment is not submitted yet */
	SPW__COMPLETE,        /* the write is done, the entry not locked yet */
	SPW__COMPLETE_LOCKED, /* entry locked: the move was not overtaken, the word is the old one */
	SPW__COMPLETE_DONE,   /* the word is new, the old slot not freed yet */
	SPW__FRAME_TAKEN,     /* entry locked: the frame has the backing, the word does not name it yet */
	SPW__FRAME_LEFT,      /* entry locked: the frame is nobody's, the word still names it */
	SPW__DRAIN_FOUND,     /* the entry was seen on the tier, nothing locked */
	SPW__DRAIN_READ,      /* its object was read from a batch tier, nothing locked */
};

#ifdef SPW_TEST_HOOKS
void spw__hook(enum spw__point point, spw_entry_t e);
#define SPW__HOOK(point, e) spw__hook(point, e)
#else
#define SPW__HOOK(point, e) ((void)0)
#endif

#endif
