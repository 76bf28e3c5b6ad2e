/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Model of how fs/dax.c tracks and flushes mapped persistent memory: two pages
 * of one file, and everybody who touches their entries.  ./check lists the
 * configurations and the mutations (MUT_*) and runs them; every run is exhaustive.
 *
 * process	models
 * Cpu		a thread that stores through a shared mapping: its TLB, the page
 *		table, dax_iomap_fault() or dax_insert_pfn_mkwrite(); with
 *		MKWRITE also dax_prepare_mkwrite().  With HOT, the dirty bit of
 *		the page table entry, too.
 * Gup		a writer by get_user_pages(): direct I/O that reads into the
 *		mapping, process_vm_writev(), and dax_dirty_folio().
 * Fsync	one fsync() after the other, on an open file of its own:
 *		dax_writeback_mapping_range(), the wait for WRITEBACK,
 *		file_check_and_advance_wb_err().  The first SYNCS of them are
 *		sync() or freeze: they look at the inode's dirty state first, and
 *		are who clears it, in __writeback_single_inode().  With HOT, the
 *		others are soft: they leave hot pages writable.
 * Layout	truncate or hole punch, the block is freed (with TRUNCATE);
 *		invalidate_inode_pages2_range(), which takes no lock against
 *		faults and does not look at pins (with INVALIDATE);
 *		dax_break_layout() of a block that stays (otherwise).  All of
 *		them unmap, as munmap() does: with HOT, zap_pte_range() step by
 *		step.
 *
 * One statement, atomic or d_step is what others cannot see a part of: an i_pages
 * critical section, a page table lock, an instruction.  Waiting is a condition;
 * lost wakeups are not modelled.  Nor are: PMD entries, several VMAs, eviction,
 * pages of different files that share a block.  What dax_writeback_mapping_range()
 * starts before it tags the rest is the case that nothing happens in between.
 *
 * A page table entry that is not writable is 0, be it read-only or none: nothing
 * here tells them apart.  The versions of a page in the cache and in memory are
 * kept as their difference, which is all that matters and is finite: cache[p] is
 * set if a finished store is in the cache only, need[f, p] if such a store was
 * finished when the fsync of thread f started.  Flushing moves both to "in
 * flight", the fence after it makes them durable.
 *
 * Invariants:
 *  I1	fsync returns success: what was finished when it started is durable.
 *  I2	writable in the page table or a TLB: DIRTY, or WRITEBACK by a writer
 *	that has not yet write-protected the page and flushed the TLBs.
 *  I3	finished and not durable: DIRTY or WRITEBACK.
 *  I4	DIRTY is dropped only when the block is freed, WRITEBACK never.
 *  I5	the cache is flushed when no TLB has a translation that is older than
 *	the write-protection.
 * With FREEZE, nothing is stored while the filesystem is frozen by a sync thread.
 * ONLY_I1 leaves out the others, to see what a user would notice of a mutation.
 * A deadlock is an invalid end state.
 *
 * What it says about the rules:
 * - Pins must be looked for after the page tables are write-protected, and DIRTY
 *   be set then, before the cache is flushed.  When WRITEBACK is set is too early
 *   (MUT_PIN_EARLY): the page table entry is still writable, a pin can be taken.
 *   When WRITEBACK is cleared is too late (MUT_PIN_NOTED): an fsync that starts
 *   in between sees no DIRTY, and only waits.
 * - With that, dax_dirty_folio() is redundant (MUT_NOOP_DIRTY_FOLIO).  It does
 *   not make up for a look that is too early: see Gup, and INVALIDATE.
 * - The error must reach every open file, and be set in the same critical section
 *   in which DIRTY is set and WRITEBACK cleared, or between the two.
 * - Waiting for a locked entry with a batch (MUT_HOLD_BATCH) is no deadlock if a
 *   fault that has the entry locked waits for WRITEBACK of that entry only:
 *   batches are collected in the order of the index, so who waits at an entry
 *   never has that entry, or one behind it, in its batch.  It is one if the fault
 *   waits for WRITEBACK of others (COW_WAITS_ALL), by way of a transaction for
 *   instance.  Then the batch has to be finished first, which is also better for
 *   who waits for its pages.
 * - A copy on write need not wait for WRITEBACK of the block it replaces
 *   (MUT_COW_NO_WAIT): the copy is flushed, and the old block has no stores.  It
 *   does, so that memunmap_pages() finds the page of a flush in a file.
 * - dax_prepare_mkwrite() must hold the page table lock from before it sets DIRTY
 *   until the page is writable, and mark the inode dirty before that.  It need not
 *   look at the lock of the entry (MUT_MKWRITE_LOCKED_ENTRY): it does, so that what
 *   the holder has seen of the entry stays true.
 * - Who clears I_DIRTY_PAGES has to look for WRITEBACK as well as for DIRTY
 *   (MUT_SYNC_DIRTY_ONLY): an fsync() that has cleared DIRTY may not have flushed.
 *
 * Hot pages (HOT; they are hot from the start, unless COLD).  fsync() does not
 * write-protect them, it clears the dirty bit of the page table entry.  A CPU
 * sets that with its first store, and then not again until its TLB is flushed: so
 * tlb[] says who has it dirty in its TLB, and who has it clean there is no
 * different from who has nothing.  Any other sync write-protects.
 * - They stay DIRTY: an fsync() that finds WRITEBACK waits, and looks again for
 *   what has been stored since.  DIRTY may be missing until the page tables are
 *   walked (MUT_HOT_DIRTY_GAP), but not any longer (MUT_HOT_DIRTY_WINDOW).
 * - They keep TOWRITE, too.  It may be that of a freeze, which would leave out the
 *   page (MUT_HOT_CLEAR_TOWRITE), and then it is writable in a frozen filesystem.
 * - The dirty bit of an entry that is write-protected is that which is there when
 *   the entry is taken away (MUT_HOT_LOOK_EARLY).
 * - Who removes a dirty page table entry, or drops a pin, sets PG_dirty before.
 * - PG_dirty of hot pages must be cleared before the page tables are walked
 *   (MUT_HOT_NOTE_LATE).  zap_pte_range() sets it before it flushes the TLBs, and
 *   the walk has to wait for the page table lock for that flush.  Whoever clears
 *   PG_dirty later takes the note of a store that comes after the cache is flushed.
 * - It is cleared later for other pages, so a page must not become hot during
 *   WRITEBACK (MUT_HOT_HEAT_EARLY).
 * - It must be looked at again after the walk (MUT_HOT_NOTE_EARLY), without
 *   clearing it, and after the pins (MUT_HOT_NOTE_BEFORE_PINS).
 * - The pins must be looked at after the walk (MUT_HOT_PIN_EARLY).  That is so
 *   because of other syncs: they write-protect hot pages, too, and flush only
 *   those that have been stored to.
 * - Faults need not make the page table entry dirty, nor set PG_dirty
 *   (MUT_HOT_FAULT_CLEAN).  An error has to set it (MUT_HOT_ERROR_NO_NOTE).
 *
 * Sizes: CPUS with STORES each, FSYNCS threads with CALLS each, BATCH pages,
 * GUPS writes by Gup, LAYOUTS operations by Layout, ERRORS flushes that fail.
 */
#define PAGES 2

#ifndef CPUS
#define CPUS 1
#endif
#ifndef STORES
#define STORES 2
#endif
#ifndef FSYNCS
#define FSYNCS 2
#endif
#ifndef SYNCS
#define SYNCS 0
#endif
#ifndef CALLS
#define CALLS 1
#endif
#ifndef BATCH
#define BATCH PAGES
#endif
#ifndef GUPS
#define GUPS 0
#endif
#ifndef LAYOUTS
#define LAYOUTS 0
#endif
#ifndef ERRORS
#define ERRORS 0
#endif

/* mapping->i_pages: the entries, their lock bit, their tags */
bool present[PAGES], locked[PAGES], dirty[PAGES], towrite[PAGES], wb[PAGES];
byte block[PAGES];		/* block of the file, as a generation */
byte readers;			/* mapping->invalidate_lock */
bool writer;
byte pins[PAGES];		/* folio_maybe_dma_pinned() */
bool shared[PAGES];		/* the block has to be copied before a write */
bool pte[PAGES];		/* writable page table entry */
#ifdef HOT
#ifndef MKWRITE
#define MKWRITE
#endif
bool hot[PAGES];		/* DAX_HOT of the entry */
bool cool[PAGES];		/* PG_referenced of the folio is clear */
bool pte_dirty[PAGES];		/* dirty bit of the page table entry */
bool pg_dirty[PAGES];		/* PG_dirty of the block's folio */
#define set_dirty(p)	dirty[p] = 1; pg_dirty[p] = 1	/* dax_set_dirty() */
#else
#define set_dirty(p)	dirty[p] = 1
#endif
#ifdef MKWRITE
bool ptl[PAGES];		/* its lock, if held for more than one step */
#define pte_locked(p)	ptl[p]
#else
#define pte_locked(p)	0
#endif
byte tlb[CPUS * PAGES];		/* 0: none, FRESH or STALE: writable */
bool cache[PAGES], in_flight[PAGES];
bool dma[PAGES];		/* as cache[], by a Gup that has not finished */
byte need[FSYNCS * PAGES];	/* 0, IN_CACHE or IN_FLIGHT */
bool err[FSYNCS];		/* mapping->wb_err is newer than file->f_wb_err */
byte errors;
bool cleaning[PAGES];		/* from WRITEBACK is set to the TLBs are flushed */
#ifdef FREEZE
bool frozen;			/* SB_FREEZE_COMPLETE */
#define not_frozen()	assert(!frozen)
#else
#define not_frozen()	skip
#endif
#if SYNCS
bool inode_dirty;		/* I_DIRTY_PAGES */
bool inode_sync;		/* I_SYNC */
#define mark_inode_dirty()	inode_dirty = 1
#else
#define mark_inode_dirty()	skip
#endif

#define FRESH		1
#define STALE		2	/* the page table does not have it any more */
#define IN_CACHE	1
#define IN_FLIGHT	2

/* Only used within a step.  A loop must not be the end of one: hence "skip". */
hidden byte i, j;

#define each(i, n)	i : 0 .. (n) - 1
#define has(set, p)	(((set) >> (p)) & 1)
#define add(set, p)	set = set | (1 << (p))
#define del(set, p)	set = set & ~(1 << (p))
#define first(set)	(has(set, 0) -> 0 : 1)

#if CPUS == 1
#define in_tlb(p, what)	(tlb[p] == what)
#else
#define in_tlb(p, what)	(tlb[p] == what || tlb[PAGES + (p)] == what)
#endif
#define writable(p)	(pte[p] || in_tlb(p, FRESH) || in_tlb(p, STALE))

#ifdef ONLY_I1
#define check(cond)	skip
#else
#define check(cond)	assert(cond)
#endif

#define I2(p)	(!writable(p) || dirty[p] || cleaning[p])
#define I3(p)	(!(cache[p] || in_flight[p]) || dirty[p] || wb[p])

#ifndef ONLY_I1
/* Can only run in a state that violates an invariant */
active proctype Invariants()
{
end:	atomic {
		!I2(0) || !I2(1) || !I3(0) || !I3(1);
		assert(I2(0) && I2(1));
		assert(I3(0) && I3(1));
	}
}
#endif

/* Translations of the page in TLBs are older than its page table entry */
inline age_tlb(p)
{
	for (each(i, CPUS)) {
		if
		:: tlb[i * PAGES + p] -> tlb[i * PAGES + p] = STALE
		:: else
		fi
	}
}

/* The page is not writable any more */
inline clear_pte(p)
{
	age_tlb(p);
#ifdef HOT
	pte_dirty[p] = 0;
#endif
	pte[p] = 0
}

inline flush_tlb(cpu, set)
{
	d_step {
		for (each(j, PAGES)) {
			if
			:: has(set, j) -> tlb[cpu * PAGES + j] = 0
			:: else
			fi
		}
		skip
	}
}

/* What is in the cache or in flight does not matter any more, or is durable */
inline forget(p)
{
	for (each(i, FSYNCS)) {
		need[i * PAGES + p] = 0;
	}
	cache[p] = 0;
	in_flight[p] = 0
}

/* A fault makes the page table entry dirty, so that the CPU need not do it */
#if defined(HOT) && !defined(MUT_HOT_FAULT_CLEAN)
#define fault_dirty(p)	pte_dirty[p] = 1
#else
#define fault_dirty(p)	skip
#endif

/* ->page_mkwrite, ->fault, ->pfn_mkwrite.  Does not wait for WRITEBACK. */
inline write_fault(p)
{
	atomic { !writer -> readers++ }
	/* grab_mapping_entry(), get_next_unlocked_entry() */
	atomic { !locked[p] -> locked[p] = 1; present[p] = 1 }
	if
	:: shared[p] ->
		/* Unmapped, and never mapped writable: no TLB to flush */
#ifdef COW_WAITS_ALL
		!wb[0] && !wb[1];
#elif !defined(MUT_COW_NO_WAIT)
		!wb[p];
#endif
		/* The copy is flushed and fenced before the entry is replaced */
#ifdef HOT
		d_step {
			shared[p] = 0;
			block[p]++;
			forget(p);
			hot[p] = 0;
			cool[p] = 0;
			dirty[p] = 1;
			pg_dirty[p] = 1
		}
	:: else -> d_step {
			dirty[p] = present[p];
#ifndef MUT_HOT_FAULT_CLEAN
			pg_dirty[p] = present[p]
#endif
		}
	fi;
	mark_inode_dirty();
	atomic { !pte_locked(p) -> pte[p] = 1; fault_dirty(p) };
#else
		d_step { shared[p] = 0; block[p]++; forget(p); dirty[p] = 1 }
	:: else -> dirty[p] = present[p]	/* no tag without an entry */
	fi;
	mark_inode_dirty();
	atomic { !pte_locked(p) -> pte[p] = 1 };
#endif
	atomic { locked[p] = 0; readers-- }
}

#ifdef MKWRITE
/*
 * vmf_mkwrite(): the entry is not locked, but the page table is.  Does nothing if
 * the entry is locked or gone; the store faults again.
 */
inline mkwrite_fault(p)
{
	atomic { !writer -> readers++ }
#ifndef MUT_MKWRITE_UNLOCKED
	atomic { !ptl[p] -> ptl[p] = 1 }
#endif
	if
	:: atomic {
#ifdef MUT_MKWRITE_LOCKED_ENTRY
		present[p] && !shared[p] ->
#else
		present[p] && !shared[p] && !locked[p] ->
#endif
#ifdef HOT
		/* It has been cleaned, and writeback has cleared PG_dirty */
#ifdef MUT_HOT_HEAT_EARLY
		if
		:: !dirty[p] -> hot[p] = 1; cool[p] = 0
		:: else
		fi;
#else
		if
		:: !dirty[p] && !wb[p] -> hot[p] = 1; cool[p] = 0
		:: else
		fi;
#endif
#ifndef MUT_HOT_FAULT_CLEAN
		pg_dirty[p] = 1;
#endif
#endif
		dirty[p] = 1
	   };
#ifndef MUT_MKWRITE_INODE_LATE
		mark_inode_dirty();
#endif
#ifdef MUT_MKWRITE_UNLOCKED
		atomic { !ptl[p] -> ptl[p] = 1 };
#endif
#ifdef HOT
		atomic { pte[p] = 1; fault_dirty(p) };
#else
		pte[p] = 1;
#endif
#ifdef MUT_MKWRITE_INODE_LATE
		mark_inode_dirty();
#endif
	:: else
	fi;
	atomic { ptl[p] = 0; readers-- }
}
#endif

proctype Cpu(byte me)
{
	byte n, p;

	do
	:: n == STORES -> break
	:: n < STORES ->
		if
		:: p = 0
		:: p = 1
		fi;
again:		atomic {
			if
			:: tlb[me * PAGES + p] -> skip
			:: !tlb[me * PAGES + p] && pte[p] ->
#ifdef HOT
				pte_dirty[p] = 1;
#endif
				tlb[me * PAGES + p] = FRESH
			:: else -> goto fault
			fi;
			not_frozen();
			cache[p] = 1;
			p = 0;
			n++
		};
		goto next;
fault:
#ifdef MKWRITE
		if
		:: mkwrite_fault(p)
		:: write_fault(p)
		fi;
#else
		write_fault(p);
#endif
		goto again;
next:		skip
	od
}

/*
 * The pin is taken with the page table lock, or by get_user_pages_fast(), which
 * looks at the page table entry again when it has the pin.
 *
 * The store is finished at once, because direct I/O completes before a work item
 * marks the pages dirty; with PLAIN it is when the pin is dropped.  The pin may
 * be dropped without dax_dirty_folio(), because a folio whose block was shared
 * once has no mapping; not so with TELLS.
 */
proctype Gup()
{
	byte n, p, b;

	do
	:: n == GUPS -> break
	:: n < GUPS ->
		if
		:: p = 0
		:: p = 1
		fi;
again:		atomic {
			if
			:: pte[p] -> pins[p]++; b = block[p]
			:: else -> goto fault
			fi
		};
#ifdef PLAIN
		dma[p] = 1;
#else
		cache[p] = 1;
#endif
#ifndef TELLS
		if
#if defined(HOT) && !defined(MUT_HOT_PIN_NO_NOTE)
		:: atomic {
			/* noop_dirty_folio() */
			pg_dirty[p] = pg_dirty[p] | (present[p] && block[p] == b);
			goto drop
		   }
#else
		:: goto drop
#endif
		:: skip
		fi;
#endif
#ifndef MUT_NOOP_DIRTY_FOLIO
		d_step {
			if
#ifdef HOT
			:: present[p] && block[p] == b && !pg_dirty[p] ->
#else
			:: present[p] && block[p] == b ->
#endif
				set_dirty(p)
			:: else
			fi
		};
		mark_inode_dirty();
#endif
drop:		atomic {
			pins[p]--;
			if
			:: dma[p] -> cache[p] = 1; dma[p] = 0
			:: else
			fi;
			p = 0;
			b = 0;
			n++
		};
		goto next;
fault:		write_fault(p);
		goto again;
next:		skip
	od
}

/* An entry that writeback waits for before it takes it into a batch */
#if defined(MUT_NO_LOCK_WAIT)
#define busy(p)	(wb[p])
#elif defined(MUT_NO_WB_WAIT)
#define busy(p)	(locked[p])
#elif defined(MUT_HOT_NO_WB_WAIT)
#define busy(p)	(locked[p] || (wb[p] && !hot[p]))
#else
#define busy(p)	(locked[p] || wb[p])
#endif

/* Finish the batch, when nothing can be added */
#ifdef MUT_HOLD_BATCH
#define full	(p == PAGES || nr == BATCH)
#else
#define full	(p == PAGES || nr == BATCH || (towrite[p] && busy(p)))
#endif

inline fence()
{
	atomic {
		for (each(j, PAGES)) {
			if
			:: has(flushed, j) ->
				in_flight[j] = 0;
				for (each(i, FSYNCS)) {
					if
					:: need[i * PAGES + j] == IN_FLIGHT ->
						need[i * PAGES + j] = 0
					:: else
					fi
				}
			:: else
			fi
		};
		flushed = 0
	}
}

inline flush_cache(set)
{
	todo = set;
	do
	:: todo == 0 -> break
	:: atomic {
		todo ->
		q = first(todo);
		del(todo, q);
		if
		:: errors < ERRORS -> errors++; failed = 1
		:: block[q] == b[q] ->	/* otherwise it flushes the old one */
			check(!in_tlb(q, STALE));
			add(flushed, q);
			d_step {
				in_flight[q] = in_flight[q] | cache[q] | dma[q];
				cache[q] = 0;
				dma[q] = 0;
				for (each(i, FSYNCS)) {
					if
					:: need[i * PAGES + q] ->
						need[i * PAGES + q] = IN_FLIGHT
					:: else
					fi
				}
			}
		:: else
		fi;
		q = 0
	   }
	od
}

/* mapping_set_error() */
inline set_error()
{
	for (each(i, FSYNCS)) {
		err[i] = err[i] | failed;
	}
	skip
}

/* One critical section: DIRTY if there was an error, the error, no WRITEBACK */
inline end_writeback()
{
	d_step {
		for (each(j, PAGES)) {
			if
			:: has(batch, j) ->
				check(wb[j] && block[j] == b[j]);
#ifdef MUT_DIRTY_LATE
				dirty[j] = 0;
#endif
#ifdef MUT_PIN_NOTED
				if
				:: has(pinned, j) -> dirty[j] = 1
				:: else
				fi;
#endif
#ifndef MUT_ERROR_CLEAN
				if
				:: failed ->
#if defined(HOT) && !defined(MUT_HOT_ERROR_NO_NOTE)
					pg_dirty[j] = 1;
#endif
					dirty[j] = 1
				:: else
				fi;
#endif
#ifdef HOT
				if
				:: todo && has(keep & ~found, j) && !locked[j] ->
#ifdef MUT_HOT_COOL_CLEAN
					towrite[j] = 0;
					dirty[j] = 0;
#endif
					cool[j] = 1
				:: else
				fi;
#endif
				wb[j] = 0;
				cleaning[j] = 0
			:: else
			fi
		}
		skip;
#if defined(MUT_ERROR_OWN)
		err[me] = err[me] | failed
#elif !defined(MUT_ERROR_EARLY) && !defined(MUT_ERROR_LATE)
		set_error()
#endif
	}
}

#ifdef HOT
/*
 * PG_dirty of hot pages is cleared before the page table is looked at: who zaps an
 * entry sets it before the TLBs are flushed, and holds the page table lock until
 * then.
 */
inline clear_pg_dirty(set)
{
	d_step {
		for (each(j, PAGES)) {
			if
			:: has(set, j) ->
				found = found | (pg_dirty[j] << j);
				pg_dirty[j] = 0
			:: else
			fi
		}
		skip
	}
}

#define look_at_pins()	found = found | ((pins[q] > 0) << q)
#define look_at_note()	found = found | (pg_dirty[q] << q)

#ifdef MUT_HOT_NOTE_BEFORE_PINS
#define look_first()	look_at_note()
#define look_last()	look_at_pins()
#else
#ifdef MUT_HOT_PIN_EARLY
#define look_first()	skip
#else
#define look_first()	look_at_pins()
#endif
#ifdef MUT_HOT_NOTE_EARLY
#define look_last()	skip
#else
#define look_last()	look_at_note()
#endif
#endif

/* dax_batch_harvest(), for pages whose page table entries were not dirty */
inline harvest()
{
	todo = hots & ~found;
	do
	:: todo == 0 -> break
	:: atomic { todo -> q = first(todo); look_first() };
	   atomic { look_last(); del(todo, q); q = 0 }
	od;
	skip
}

/* Hot pages that nobody has stored to are not flushed */
#define to_flush	(batch & ~(hots & ~found))
#else
#define to_flush	batch
#endif

inline finish_batch()
{
#if defined(HOT) && !defined(MUT_HOT_NOTE_LATE)
	clear_pg_dirty(hots);
#endif
#ifdef MUT_HOT_DIRTY_GAP
	d_step {
		dirty[0] = dirty[0] | has(keep, 0);
		dirty[1] = dirty[1] | has(keep, 1)
	};
#endif
#ifdef MUT_HOT_PIN_EARLY
	atomic { look_at_pins(); q++; look_at_pins(); q = 0 };
#endif
#ifdef MUT_HOT_LOOK_EARLY
	found = found | batch & ~keep & (pte_dirty[0] | pte_dirty[1] << 1);
#endif
	/* Walk the page tables, each entry with its lock */
	todo = batch;
	do
	:: todo == 0 -> break
	:: atomic {
		todo && !pte_locked(first(todo)) ->
		q = first(todo);
		del(todo, q);
		if
#ifdef HOT
		:: has(keep, q) ->
			if
			:: block[q] == b[q] && pte_dirty[q] ->
#ifndef MUT_HOT_NO_TLB_FLUSH
				flush = 1;
#endif
				add(found, q);
				pte_dirty[q] = 0;
				d_step { age_tlb(q); skip }
			:: else
			fi
		:: !has(keep, q) && block[q] == b[q] && pte[q] ->
#ifndef MUT_HOT_LOOK_EARLY
			found = found | (pte_dirty[q] << q);
#endif
#else
		:: block[q] == b[q] && pte[q] ->
#endif
			flush = 1;
			d_step { clear_pte(q) }
		:: else
		fi;
		q = 0
	   }
	od;
#ifdef MUT_FLUSH_BEFORE_TLB
	flush_cache(batch);
#endif
#ifdef MUT_HOT_FLUSH_BEFORE_TLB
	flush_cache(keep & found);
#endif
	if
	:: flush ->
		flush_tlb(0, batch);
#if CPUS > 1
		flush_tlb(1, batch)
#endif
	:: else
	fi;
#ifdef HOT
	harvest();
#ifdef MUT_HOT_NOTE_LATE
	clear_pg_dirty(to_flush);
#else
	clear_pg_dirty(batch & ~hots);	/* dax_prepare_flush() */
#endif
#endif
	/*
	 * There are no new pins without a fault that sets DIRTY.  What a pin that
	 * is gone has stored is flushed below.  DIRTY must be there before the
	 * flush: an fsync() that starts after it has to find what the pin stores
	 * then.
	 */
	d_step {
		for (each(j, PAGES)) {
			if
			:: has(batch, j) ->
				cleaning[j] = 0;
#ifdef MUT_HOT_DIRTY_WINDOW
				dirty[j] = dirty[j] | has(keep, j);
#endif
#if defined(MUT_PIN_NOTED)
				pinned = pinned | ((pins[j] > 0) << j)
#elif !defined(MUT_PIN_EARLY) && !defined(MUT_PIN_NEVER)
#ifdef HOT
				pg_dirty[j] = pg_dirty[j] | (pins[j] > 0 && has(to_flush, j));
#endif
				dirty[j] = dirty[j] | (pins[j] > 0)
#endif
			:: else
			fi
		}
		flush = 0
	};
#if defined(MUT_WB_BEFORE_FLUSH)
	end_writeback();
	flush_cache(batch);
	fence();
#elif defined(MUT_WB_BEFORE_FENCE)
	flush_cache(batch);
	end_writeback();
	fence();
#elif defined(MUT_FLUSH_BEFORE_TLB)
	fence();
	end_writeback();
#else
#ifdef MUT_HOT_FLUSH_BEFORE_TLB
	flush_cache(batch & ~keep);
#else
	flush_cache(to_flush);
#endif
	fence();
#ifdef MUT_ERROR_EARLY
	d_step { set_error() };
#endif
#ifdef HOT
	/* Others set PG_referenced, too, so not all clean pages cool down */
	atomic {
		if
		:: todo = 1
		:: keep & ~found == 0 -> skip
		:: keep & ~found -> skip
		fi;
		end_writeback();
		todo = 0
	};
#else
	end_writeback();
#endif
#endif
#ifdef MUT_ERROR_LATE
	d_step { set_error() };
#endif
#ifdef HOT
	d_step { hots = 0; keep = 0; found = 0 };
#endif
	d_step { batch = 0; nr = 0; failed = 0; b[0] = 0; b[1] = 0; pinned = 0 }
}

#ifdef MUT_SYNC_DIRTY_ONLY
#define I_PAGES	(dirty[0] || dirty[1])
#else
#define I_PAGES	(dirty[0] || dirty[1] || wb[0] || wb[1])
#endif

/* file_write_and_wait_range(), not dax_writepages() */
#ifdef MUT_HOT_SYNC_SOFT
#define soft	1
#else
#define soft	(me >= SYNCS)
#endif

/* An inode that is not dirty is left alone, and nothing was tagged */
inline start_sync()
{
	atomic { !inode_sync -> inode_sync = 1 };
	atomic {
		if
		:: !inode_dirty -> inode_sync = 0; goto done
		:: else
		fi
	}
}

inline end_sync()
{
	inode_dirty = 0;
	/* smp_mb() */
	atomic {
		inode_dirty = inode_dirty | I_PAGES;
		inode_sync = 0
	}
}

proctype Fsync(byte me)
{
	byte calls, p, q, nr, b[PAGES];
	byte batch, todo, flushed, pinned;	/* sets of pages */
#ifdef HOT
	byte hots;		/* hot pages */
	byte keep;		/* those that a soft sync leaves writable */
	byte found;		/* hot pages that may have been stored to */
#endif
	bool flush, failed;

	do
	:: calls == CALLS -> break
	:: calls < CALLS ->
#ifdef FREEZE
		/* freeze_super(): no more faults */
		if
		:: me < SYNCS -> atomic { !writer && !readers -> writer = 1 }
		:: else
		fi;
#endif
		/* The call starts; tag_pages_for_writeback() */
		d_step {
			for (each(i, PAGES)) {
				need[me * PAGES + i] =
					(cache[i] -> IN_CACHE :
					 (in_flight[i] -> IN_FLIGHT : 0));
				towrite[i] = towrite[i] | dirty[i]
			}
			calls++
		};
#if SYNCS
		if
		:: me < SYNCS -> start_sync()
		:: else
		fi;
#endif
		/* If neither of these can run it waits for the entry at p */
		do
		:: atomic { p < PAGES && !towrite[p] -> p++ }
		:: atomic {
			p < PAGES && nr < BATCH && towrite[p] && !busy(p) ->
			check(present[p] && dirty[p]);
#ifdef HOT
			hots = hots | (hot[p] << p);
			if
			:: soft && hot[p] && !cool[p] ->
				/* TOWRITE may be that of a sync that is not soft */
				add(keep, p);
#ifdef MUT_HOT_CLEAR_TOWRITE
				towrite[p] = 0;
#endif
#if defined(MUT_HOT_DIRTY_WINDOW) || defined(MUT_HOT_DIRTY_GAP)
				towrite[p] = 0;
				dirty[p] = 0
#endif
			:: else ->
				towrite[p] = 0;
				dirty[p] = 0;
				cleaning[p] = 1
			fi;
#else
			towrite[p] = 0;
#if defined(MUT_PIN_EARLY)
			dirty[p] = (pins[p] > 0);
#elif !defined(MUT_DIRTY_LATE)
			dirty[p] = 0;
#endif
#endif
			wb[p] = 1;
#ifndef HOT
			cleaning[p] = 1;
#endif
			add(batch, p);
			b[p] = block[p];
			nr++;
			p++
		   }
		:: nr && full -> finish_batch()
		:: nr == 0 && p == PAGES -> p = 0; break
		od;
#ifndef MUT_NO_FINAL_WAIT
		/* filemap_fdatawait_range() */
		do
		:: p == PAGES -> p = 0; break
		:: atomic { p < PAGES && !wb[p] -> p++ }
		od;
#endif
#if SYNCS
		if
		:: me < SYNCS -> end_sync()
		:: else
		fi;
done:
#endif
		atomic {
			if
			:: err[me] -> err[me] = 0
			:: else ->
				assert(!need[me * PAGES] && !need[me * PAGES + 1])
			fi;
			need[me * PAGES] = 0;
			need[me * PAGES + 1] = 0
		}
#ifdef FREEZE
		if
		:: me < SYNCS ->
			frozen = 1;
			atomic { frozen = 0; writer = 0 }
		:: else
		fi
#endif
	od
}

inline unmap(p)
{
#ifdef HOT
	/* zap_pte_range() */
	atomic { !ptl[p] -> ptl[p] = 1; pte[p] = 0 };
	if
	:: atomic { pte_dirty[p] -> pte_dirty[p] = 0 };
#ifndef MUT_HOT_ZAP_NO_NOTE
		d_step {
			if
			:: present[p] && !pg_dirty[p] -> set_dirty(p)
			:: else
			fi
		};
		mark_inode_dirty();
#endif
		d_step { for (each(i, CPUS)) { tlb[i * PAGES + p] = 0; } skip };
		ptl[p] = 0
	:: else ->
		ptl[p] = 0;
		d_step { for (each(i, CPUS)) { tlb[i * PAGES + p] = 0; } skip }
	fi
#elif defined(MUT_ZAP_SPLIT)
	d_step { !pte_locked(p) -> clear_pte(p) };
	d_step { for (each(i, CPUS)) { tlb[i * PAGES + p] = 0; } skip }
#else
	/* The page table lock of a dirty entry is held until the TLBs are flushed */
	d_step {
		!pte_locked(p) ->
		for (each(i, CPUS)) { tlb[i * PAGES + p] = 0; }
		pte[p] = 0
	}
#endif
}

/* The entry is removed, and the block freed */
inline truncate_entry(p)
{
	d_step {
#ifdef MUT_REMOVE_WB
		!locked[p] ->
#else
		!locked[p] && !wb[p] ->
#endif
		check(!wb[p]);
		present[p] = 0;
		dirty[p] = 0;
		towrite[p] = 0;
		wb[p] = 0;
#ifdef HOT
		hot[p] = 0;
		cool[p] = 0;
		pg_dirty[p] = 0;
#endif
		block[p]++;
		forget(p)
	}
}

/* The entry is removed if it is clean, the block stays */
inline remove_clean_entry(p)
{
	d_step {
#ifndef MUT_REMOVE_LOCKED
		!locked[p] ->
#endif
		if
#ifdef MUT_BREAK_DIRTY
		:: present[p] && !wb[p] ->
#else
		:: present[p] && !dirty[p] && !towrite[p] && !wb[p] ->
#endif
			check(!dirty[p] && !towrite[p] && !wb[p]);
			present[p] = 0;
			dirty[p] = 0;
#ifdef HOT
			hot[p] = 0;
			cool[p] = 0;
			pg_dirty[p] = 0;
#endif
			towrite[p] = 0
		:: else
		fi
	}
}

proctype Layout()
{
	byte n, p;

	do
	:: n == LAYOUTS -> break
	:: n < LAYOUTS ->
		if
		:: p = 0
		:: p = 1
		fi;
#ifdef INVALIDATE
		remove_clean_entry(p);
		unmap(p);
		n++;
#else
		/* Waits for pins without the lock, and begins again */
lock:		atomic { !writer && !readers -> writer = 1 };
		unmap(p);
		if
		:: pins[p] -> writer = 0; !pins[p]; goto lock
		:: else
		fi;
#ifdef TRUNCATE
		truncate_entry(p);
#else
		remove_clean_entry(p);
#endif
		atomic { writer = 0; n++ };
#endif
		p = 0
	od
}

init
{
	atomic {
#ifdef COW
		/* Dirty entries of blocks that were cloned */
		for (each(i, PAGES)) {
			present[i] = 1;
			set_dirty(i);
			cache[i] = 1;
			shared[i] = 1;
		}
#endif
#if defined(HOT) && !defined(COLD) && !defined(COW)
		/* Pages that are stored to again and again, between two stores */
		for (each(i, PAGES)) {
			present[i] = 1;
			dirty[i] = 1;
			hot[i] = 1;
			pte[i] = 1;
		}
		mark_inode_dirty();
#endif
		for (each(j, CPUS)) { run Cpu(j); }
		for (each(j, FSYNCS)) { run Fsync(j); }
#if GUPS
		run Gup();
#endif
#if LAYOUTS
		run Layout();
#endif
	}
}
