/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One descriptor, exhaustively: an entry that two page tables may hold, a pool (RAM, tier 0), a file (tier 1) and a
 * slower file (tier 2) of a few slots, and all that src/space does with the entry at the same time.
 *
 *   proctype  inline                      stands for
 *   page      fault, load                 spw_load() (store.c), then spw_cache_add() or spw_cache_get() (cache.c)
 *             evict                       spw_cache_add() of a FREE entry
 *             take_back, drop_frame       spw_cache_del(), keep false and true
 *             store                       spw_store(), uncached
 *             dup, release                spw_dup(), spw_free() (count.c)
 *   storer                                spw_store() of a frame, spw__replace() (store.c)
 *   reader    load                        spw_load() by a thread that holds no lock of the host: readahead
 *   driver    send, finish                spw__send(), complete() (move.c)
 *             drain_look, drain_move      on_tier(), drain_one() with spw__relocate() or spw__send() (drain.c, move.c)
 *             clean                       spw_clean() (move.c)
 *   canceller                             spw_drain_cancel() (drain.c)
 *   foreign                               other entries in the pool; on the files other processes, and the worst of
 *                                         them: its bytes pass the seal, for it is an entry of the same number
 *
 * STORED is POOL or SLOT, by the tier of its slot. kind, at and moving are the word that says where the bytes are: the
 * entry's own, or, if it is cached, the one that its frame keeps (spw__where()). An atomic block that begins with
 * !locked is what a function does under the entry's lock; what it does before and after are steps of their own. RAM is
 * read under the lock, in steps, so the lock is a variable. The host is asked for what space.h asks: `host` is its
 * lock around a load and the frame that it fills, and around a store that is no frame's; a frame is not given out again
 * while it is stored. That a store may land on a tier that has just closed is not here but in tests/stress/cases.c.
 *
 * Checked, and the broken variants (-D, see meson.build) that show that it can fail:
 *
 *  - no lost page: where the word says are the bytes that were stored last (truth).
 *    FREE_UNDER_MOVE, BLIND_COMPLETION, CACHE_FORGETS_MOVE, BLIND_DRAIN
 *  - no stale page: what is stored is the latest, and a load gives nothing older than what was there when it began.
 *    BLIND_STORE, FRAME_REUSED
 *  - no slot is freed twice or while it is empty, and none stays taken when all is over. DOUBLE_FREE, LEAK
 *  - a slot may be freed while it is read, but what was read is then not believed. BLIND_LOAD, NO_LIFE, UNLOCKED_LOAD
 *  - no deadlock: every process comes to its end. WAIT_UNDER_LOCK
 *
 * What takes part, and how often at most, is chosen by -D for each run, for all at once is too much: PAGES, STORES,
 * READS, SENDS, DRAINS, CLEANS, CANCELS, FOREIGN. An entry begins in the pool, on the file, or in a frame only.
 */
#ifndef PAGES
#define PAGES 4 /* operations of the page tables */
#endif
#ifndef STORES
#define STORES 0
#endif
#ifndef READS
#define READS 0
#endif
#ifndef SENDS
#define SENDS 0
#endif
#ifndef DRAINS
#define DRAINS 0
#endif
#ifndef CLEANS
#define CLEANS 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef FOREIGN
#define FOREIGN 0
#endif

#define SLOTS   5
#define MOVES   2
#define NONE    255
#define EMPTY   0
#define THEIRS  200
#define tier(s) ((s) < 2 -> 0 : ((s) < 4 -> 1 : 2))

mtype = { FREE, SAME, STORED, ONLY }; /* ONLY: cached, and nothing behind the frame */

/* The entry. */
mtype kind = FREE;
byte at = NONE;
bool moving, cached, locked;
byte frame, same, count;

/* Tiers. */
byte bytes[SLOTS]; /* the version in a slot */
byte life[SLOTS];
bool closed[2];

/* Frames, one of each page table, and moves in flight. */
byte page_in[2];
byte storing = NONE;
bool flying[MOVES];
byte from[MOVES], to[MOVES];

/* What must be so. */
byte latest;
bool holds[2];
bool host;
byte running, ops;

inline truth()
{
	assert(count == holds[0] + holds[1]);
	assert((count == 0) == (kind == FREE));
	assert(!cached || page_in[frame] == latest);
	assert(kind != STORED || bytes[at] != EMPTY && bytes[at] != THEIRS);
	assert(cached || kind != STORED || bytes[at] == latest);
	assert(cached || kind != SAME || same == latest);
	assert(!moving || kind == STORED)
}

/* Only files are read unlocked, so only there a slot's lives matter. */
inline place(slot, what)
{
	assert(bytes[slot] == EMPTY);
	bytes[slot] = what;
	if
	:: tier(slot) > 0 -> life[slot]++
	:: else
	fi
}


inline vacate(slot) { assert(bytes[slot] != EMPTY && bytes[slot] != THEIRS); bytes[slot] = EMPTY }

/* out: a free slot of the tier if it takes objects, or NONE. Tiers do their own locking. */
inline room(which, out)
{
	if
	:: which == 0 && !closed[0] && bytes[0] == EMPTY -> out = 0
	:: which == 0 && !closed[0] && bytes[0] != EMPTY && bytes[1] == EMPTY -> out = 1
	:: which == 1 && !closed[1] && bytes[2] == EMPTY -> out = 2
	:: which == 1 && !closed[1] && bytes[2] != EMPTY && bytes[3] == EMPTY -> out = 3
	:: which == 2 && bytes[4] == EMPTY -> out = 4
	:: else -> out = NONE
	fi
}

/* spw__replace(): the new word is there; old is the slot that the caller vacates after it has unlocked. */
inline let_go(old)
{
	old = NONE;
	if
#ifdef FREE_UNDER_MOVE
	:: kind == STORED -> old = at
#else
	:: kind == STORED && !moving -> old = at
#endif
	:: else
	fi;
	kind = FREE; at = NONE; moving = false; cached = false
}

inline vacate_old(old)
{
	if
#ifdef LEAK
	:: old != NONE && tier(old) == 1 -> skip
#endif
	:: old != NONE -> atomic { vacate(old); old = NONE }
	:: else
	fi
}

/* spw_load(). v: the version; NONE if the entry is FREE or in a frame. */
inline load(v, a, l, since)
{
	do
	:: atomic {
		v = NONE; since = latest; a = at;
		if
		:: kind == FREE || cached -> break
		:: else
		fi;
		if
		:: kind == SAME -> v = same; break
		:: else
		fi
	   };
	   if
	   :: tier(a) == 0 ->
#ifdef UNLOCKED_LOAD
		v = bytes[a];
		break
#else
		atomic {
			!locked;
			if
			:: cached || kind != STORED || tier(at) != 0 -> goto again
			:: else -> locked = true; a = at
			fi
		};
#ifdef WAIT_UNDER_LOCK
		!moving;
#endif
		v = bytes[a];
		locked = false;
		break
#endif
	   :: else ->
		l = life[a];
		v = bytes[a];
		atomic {
			!locked;
			if
#ifdef BLIND_LOAD
			:: v != EMPTY -> break
#endif
#ifdef NO_LIFE
			:: !cached && kind == STORED && at == a -> break
#else
			:: !cached && kind == STORED && at == a && life[a] == l -> break
#endif
			:: else
			fi
		}
	   fi;
again:	   skip
	od;
	/* What was read is judged by what was there in the meantime. */
	atomic {
		assert(v == NONE || v >= since && v <= latest);
		a = 0; l = 0; since = 0
	}
}

proctype page(byte me)
{
	byte v, a, l, since, old = NONE, s;

	do
	/* evict: what the page table has alone goes into its frame, written to. */
	:: atomic { ops < PAGES && !locked && count == 0 && !host &&
#ifndef FRAME_REUSED
		storing != me &&
#endif
		kind == FREE ->
		ops++; latest++; page_in[me] = latest;
		kind = ONLY; cached = true; frame = me; count = 1; holds[me] = true; truth() }
	/* fault */
	:: atomic { ops < PAGES && holds[me] && !host -> ops++; host = true };
		load(v, a, l, since);
		atomic {
			!locked;
			if
			:: v != NONE && !cached && count > 0 && storing != me ->
				page_in[me] = v; cached = true; frame = me;
#ifdef CACHE_FORGETS_MOVE
				moving = false;
#endif
				truth()
			:: else /* it is in the other's frame */
			fi;
			host = false; v = 0
		}
	/* take_back: the page table may write to the page from now on. */
	:: atomic { ops < PAGES && !locked && holds[me] && cached && count == 1 && !host ->
		ops++; let_go(old); count = 0; holds[me] = false; latest++; truth() };
		vacate_old(old)
	/* drop_frame: the frame is clean. */
	:: atomic { ops < PAGES && !locked && holds[me] && cached && kind == STORED && bytes[at] == latest && !host ->
		ops++; cached = false; truth() }
	:: atomic { ops < PAGES && !locked && holds[me] && cached && kind == SAME && same == latest && !host ->
		ops++; cached = false; truth() }
	/* store, of a page that is the entry's next version */
	:: atomic { ops < PAGES && holds[me] && !cached && !host -> ops++; host = true };
		atomic {
			!locked;
			if
			:: holds[me] && !cached ->
				room(0, s);
				if
				:: s != NONE ->
					let_go(old); latest++; place(s, latest); kind = STORED; at = s; truth()
				:: let_go(old); latest++; same = latest; kind = SAME; truth()
				:: else /* -ENOSPC */
				fi
			:: else
			fi;
			host = false; s = 0
		};
		vacate_old(old)
	/* dup */
	:: atomic { ops < PAGES && !locked && holds[me] && !holds[1 - me] -> ops++; count++; holds[1 - me] = true; truth() }
	/* release */
	:: atomic { ops < PAGES && !locked && holds[me] && count > 1 -> ops++; count--; holds[me] = false; truth() }
	:: atomic { ops < PAGES && !locked && holds[me] && count == 1 ->
		ops++; let_go(old); count = 0; holds[me] = false; latest++; truth() };
		vacate_old(old)
	:: break
	od;
	atomic { running-- }
}

proctype storer()
{
	byte n = 0, f, v, old = NONE, s;

	do
	:: atomic { n < STORES && cached -> n++; f = frame; storing = f };
		v = page_in[f];
		atomic {
			!locked;
			if
#ifdef BLIND_STORE
			:: count > 0 ->
#else
			:: count > 0 && cached && frame == f ->
#endif
				room(0, s);
				if
				:: s != NONE ->
					let_go(old); place(s, v); kind = STORED; at = s; truth()
				:: let_go(old); kind = SAME; same = v; truth()
				:: else
				fi
			:: else /* -ESTALE */
			fi;
			storing = NONE; f = 0; v = 0; s = 0
		};
		vacate_old(old)
	:: break
	od;
	atomic { running-- }
}

proctype reader()
{
	byte n = 0, v, a, l, since;

	do
	:: n < READS -> n++; load(v, a, l, since); v = 0
	:: break
	od;
	atomic { running-- }
}

proctype canceller()
{
	byte n = 0;

	do
	:: atomic { n < CANCELS && closed[0] -> n++; closed[0] = false }
	:: atomic { n < CANCELS && closed[1] -> n++; closed[1] = false }
	:: break
	od;
	atomic { running-- }
}

proctype foreign()
{
	byte n = 0, s = NONE;

	do
	:: atomic { n < FOREIGN ->
			n++;
			if
			:: skip -> room(0, s)
			:: skip -> room(1, s)
			fi;
			if
			:: s != NONE -> place(s, THEIRS)
			:: else
			fi
		};
		if
		:: s != NONE -> atomic { bytes[s] = EMPTY; s = NONE }
		:: else
		fi
	:: break
	od;
	atomic { running-- }
}

/* Under the lock: the object, whose bytes are v, is on its way to the first file with room. */
inline send(v, m, t)
{
	m = (flying[0] -> 1 : 0);
	room(1, t);
	if
	:: t == NONE -> room(2, t)
	:: else
	fi;
	if
	:: t != NONE && !flying[m] ->
		place(t, v);
		flying[m] = true; from[m] = at; to[m] = t; moving = true; truth()
	:: else /* -ENOSPC, -EAGAIN */
	fi;
	m = 0; t = 0
}

/* complete(), of a write that was done or failed (then the tier has freed the new slot itself). */
inline finish(m, ok)
{
	atomic {
		!locked;
		if
#ifdef BLIND_COMPLETION
		:: kind == STORED ->
#else
		:: kind == STORED && moving && at == from[m] ->
#endif
			if
			:: ok -> at = to[m]
			:: else -> from[m] = NONE; vacate(to[m])
			fi;
			moving = false; truth()
		:: else -> /* overtaken */
			vacate(to[m])
#ifdef DOUBLE_FREE
			; vacate(from[m])
#endif
		fi;
		to[m] = NONE
	};
	atomic {
		if
		:: from[m] != NONE -> vacate(from[m])
		:: else
		fi;
		flying[m] = false; from[m] = 0; to[m] = 0
	}
}

#define on(t) (kind == STORED && !moving && tier(at) == (t))

proctype driver()
{
	byte sends = 0, drains = 0, cleans = 0, draining = NONE, m, t, s = NONE, v;

	do
	:: flying[0] -> finish(0, true)
	:: flying[0] -> finish(0, false)
	:: flying[1] -> finish(1, true)
	:: flying[1] -> finish(1, false)
	:: atomic { sends < SENDS && !locked && on(0) -> sends++; v = bytes[at]; send(v, m, t); v = 0 }
	/* The segment is pinned: its slots are given to nobody while they are looked at. */
	:: atomic { cleans < CLEANS && !locked && on(1) && !closed[1] -> cleans++; v = bytes[at]; send(v, m, t); v = 0 }
	:: atomic { drains < DRAINS && draining == NONE -> draining = 0; closed[0] = true }
	:: atomic { drains < DRAINS && draining == NONE -> draining = 1; closed[1] = true }
	/* drain_look */
	:: atomic { drains < DRAINS && draining != NONE && closed[draining] && !locked && on(draining) ->
			drains++; s = at };
		v = bytes[s];
		/* drain_move */
		atomic {
			!locked;
			if
#ifdef BLIND_DRAIN
			:: kind == STORED && !moving ->
#else
			:: kind == STORED && !moving && at == s ->
#endif
				t = NONE;
				if
				:: draining == 1 -> room(0, t)
				:: else -> v = bytes[s]
				fi;
				if
				:: t != NONE -> place(t, v); at = t; truth(); t = 0
				:: else -> send(v, m, t); s = NONE
				fi
			:: else -> s = NONE
			fi;
			v = 0
		};
		vacate_old(s)
	:: running == 0 && !flying[0] && !flying[1] -> break
	od;
	/* All holders are gone: nothing is left. */
	atomic {
		if
		:: count > 0 ->
			let_go(s); count = 0; holds[0] = false; holds[1] = false;
			if
			:: s != NONE -> vacate(s)
			:: else
			fi
		:: else
		fi;
		assert(bytes[0] + bytes[1] + bytes[2] + bytes[3] + bytes[4] == 0)
	}
}

init {
	atomic {
		count = 1; holds[0] = true; latest = 1;
		if
		:: kind = STORED; at = 0; place(0, 1)
		:: kind = STORED; at = 2; place(2, 1)
		:: kind = ONLY; cached = true; frame = 0; page_in[0] = 1
		fi;
		truth();
		run page(0); run page(1); running = 2;
		if
		:: STORES > 0 -> run storer(); running++
		:: else
		fi;
		if
		:: READS > 0 -> run reader(); running++
		:: else
		fi;
		if
		:: CANCELS > 0 -> run canceller(); running++
		:: else
		fi;
		if
		:: FOREIGN > 0 -> run foreign(); running++
		:: else
		fi;
		run driver()
	}
}
