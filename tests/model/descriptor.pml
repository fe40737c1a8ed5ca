/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of one descriptor, exhaustively: one entry, a pool and a file of a few slots, a process that stores, frees,
 * caches and loads, one that starts writebacks, and one that completes them whenever it likes. Checked:
 *
 *  - a load gives the version that was stored last, from wherever the entry says that it is;
 *  - no slot is freed twice, freed while it is empty, or overwritten;
 *  - when everything has ended and the entry is free, every slot is empty.
 *
 * -DBROKEN: a free or a store during a move frees the old slot at once. Then the pool gives the same slot to the
 * entry's next bytes, and the late completion takes them for those that it wrote: spin must find it.
 *
 * Run by run.sh.
 */
#define POOL_SLOTS 3
#define FILE_SLOTS 3
#define MOVES      2
#define STEPS      5
#define NONE       255

mtype = { FREE, SAME, POOL, SLOT };

/* The entry. cached: the words below are the backing that its frame keeps. */
mtype kind = FREE;
byte slot = NONE;
bool moving = false;
bool cached = false;
byte latest = 0;      /* version that a load must give */
byte same_version = 0;

byte pool[POOL_SLOTS]; /* version in a slot, 0 = empty */
byte file[FILE_SLOTS];

/* Moves in flight. */
bool used[MOVES];
byte from[MOVES], to[MOVES];
byte running = 2; /* processes that may start something */

inline free_pool(s) { assert(pool[s] != 0); pool[s] = 0 }
inline free_file(s) { assert(file[s] != 0); file[s] = 0 }

/* Let go of what the word refers to; with the word's change, one step under the entry's lock. */
inline let_go()
{
	if
	:: kind == POOL ->
#ifdef BROKEN
		free_pool(slot)
#else
		if
		:: moving -> skip /* the completion's */
		:: else -> free_pool(slot)
		fi
#endif
	:: kind == SLOT -> free_file(slot)
	:: else -> skip
	fi;
	kind = FREE; slot = NONE; moving = false
}

inline put(v)
{
	byte s = 0;
	do
	:: s < POOL_SLOTS && pool[s] != 0 -> s++
	:: else -> break
	od;
	if
	:: s < POOL_SLOTS ->
		let_go();
		pool[s] = v; kind = POOL; slot = s; latest = v
	:: else -> skip /* no room: as before */
	fi;
	s = 0
}

inline load()
{
	if
	:: cached || kind == FREE -> skip
	:: kind == SAME -> assert(same_version == latest)
	:: kind == POOL -> assert(pool[slot] == latest)
	:: kind == SLOT -> assert(file[slot] == latest)
	fi
}

active proctype host()
{
	byte version = 1, steps = 0;

	do
	:: steps < STEPS -> atomic {
		if
		:: !cached -> put(version); version++
		:: !cached -> let_go(); kind = SAME; same_version = version; latest = version; version++
		:: !cached -> let_go()
		:: load()
		:: !cached && kind != FREE -> cached = true
		:: cached -> cached = false                     /* back to the clean backing */
		:: cached -> let_go(); cached = false           /* taken back by the page table */
		:: cached -> put(version); version++; cached = (kind == FREE -> cached : false)
		fi;
		steps++
	}
	:: else -> break
	od;
	atomic { let_go(); cached = false; running-- }
}

active proctype writeback()
{
	byte steps = 0, m, t;

	do
	:: steps < STEPS -> atomic {
		m = 0; t = 0;
		do
		:: m < MOVES && used[m] -> m++
		:: else -> break
		od;
		do
		:: t < FILE_SLOTS && file[t] != 0 -> t++
		:: else -> break
		od;
		if
		:: m < MOVES && t < FILE_SLOTS && kind == POOL && !moving ->
			file[t] = pool[slot];
			used[m] = true; from[m] = slot; to[m] = t;
			moving = true
		:: else -> skip
		fi;
		steps++
	}
	:: else -> break
	od;
	atomic { running-- }
}

/* Completions in any order, with success or not. */
active proctype completion()
{
	byte m;

	do
	:: atomic {
		select(m : 0 .. MOVES - 1);
		if
		:: used[m] && kind == POOL && moving && slot == from[m] -> /* still there */
			if
			:: free_pool(from[m]); kind = SLOT; slot = to[m]; moving = false
			:: free_file(to[m]); moving = false                    /* the write failed */
			fi;
			used[m] = false;
			load()
		:: used[m] && !(kind == POOL && moving && slot == from[m]) -> /* overtaken */
#ifndef BROKEN
			free_pool(from[m]);
#endif
			free_file(to[m]);
			used[m] = false
		:: else -> skip
		fi
	}
	:: running == 0 && !used[0] && !used[1] -> break
	od;
	assert(kind == FREE);
	assert(pool[0] == 0 && pool[1] == 0 && pool[2] == 0);
	assert(file[0] == 0 && file[1] == 0 && file[2] == 0)
}
