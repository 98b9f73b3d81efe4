//! Queries that wait together go together: one statement for all of them.
//!
//! While a statement of a worker is at work, its other queries wait in a queue. When it has ended, all that wait and have
//! the same shape become the next statement. Databases know this as group commit, and GraphQL as a data loader. There is no
//! timer: a query that is alone starts at once, and batches grow with the load.
//!
//! A statement that is slow keeps nobody waiting for long: the next one starts beside it, on another connection. After a
//! while it is given up, and each of its queries goes again, alone: only the one that is slow stays slow.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::QueryBuilder;
use tokio::sync::oneshot;

use super::dialect::Dialect;
use super::error::Error;
use super::select::Select;
use super::value::Row;

/// The numbers of queries that a statement may have. They are few, because each is a prepared statement.
pub(super) const SIZES: [usize; 5] = [16, 8, 4, 2, 1];
/// The statements of one worker at a time. Slow ones are not counted.
const STATEMENTS: usize = 1;
/// A statement that takes longer is slow.
pub(super) const SLOW: Duration = Duration::from_millis(10);

/// One statement for all of these queries, which have the same shape. The first column of each row is the number of its
/// query.
#[must_use]
pub fn statement<DB: Dialect>(queries: &[&Select]) -> QueryBuilder<DB> {
    let mut statement = QueryBuilder::new("");
    let (begin, end) = if queries.len() > 1 { DB::IN_UNION } else { ("", "") };
    for (number, query) in queries.iter().enumerate() {
        statement.push(if number > 0 { " UNION ALL " } else { "" }).push(begin);
        DB::push_numbered(&mut statement, number, query);
        statement.push(end);
    }
    statement
}

/// The queries of one worker that wait.
pub(super) struct Batches {
    queue: Mutex<Queue>,
    /// The statements of each size, of all workers.
    counts: Arc<[AtomicU64; SIZES.len()]>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// The number of the next query.
    next: u64,
    /// Statements at work.
    running: usize,
}

impl Batches {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), counts: Arc::default() }
    }

    /// An empty queue for another worker.
    pub(super) fn for_worker(&self) -> Self {
        Self { queue: Mutex::default(), counts: self.counts.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic leaves the queue as it was.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a query.
    pub(super) fn push(self: &Arc<Self>, select: Select, answer: impl Answer, pending: Pending) -> Place {
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back(Waiting {
            number,
            select,
            answer: Box::new(answer),
            pending: Some(pending),
            goes_alone: false,
        });
        Place { batches: self.clone(), number }
    }

    /// Fails every query that waits.
    pub(super) fn fail(&self, error: &Error) {
        let waiting = mem::take(&mut self.lock().waiting);
        for waiting in waiting {
            waiting.answer.end(Err(error.clone()));
        }
    }

    /// The right to run statements, if a query waits and no other statement is at work.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let mut queue = self.lock();
        let is_free = queue.running < STATEMENTS && !queue.waiting.is_empty();
        is_free.then(|| {
            queue.running += 1;
            Turn { batches: self.clone() }
        })
    }

    /// The query that came first, and those of its shape that can go with it.
    pub(super) fn take(&self) -> Vec<Waiting> {
        let mut queue = self.lock();
        let Some(first) = queue.waiting.front() else { return Vec::new() };
        let alike = queue.waiting.iter().filter(|waiting| waiting.goes_with(first)).count().max(1);
        let (index, size) = (0..).zip(SIZES).find(|(_, size)| *size <= alike).expect("there is at least one");
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        if size == 1 || alike == queue.waiting.len() {
            return queue.waiting.drain(..size).collect();
        }
        let mut batch: Vec<Waiting> = queue.waiting.pop_front().into_iter().collect();
        for waiting in mem::take(&mut queue.waiting) {
            if batch.len() < size && waiting.goes_with(&batch[0]) {
                batch.push(waiting);
            } else {
                queue.waiting.push_back(waiting);
            }
        }
        batch
    }

    /// Puts the queries of a slow statement back that have no answer yet, before all others. Each goes alone.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut queue = self.lock();
        for mut waiting in batch.queries.into_iter().rev().flatten() {
            waiting.answer.restart();
            queue.waiting.push_front(Waiting { goes_alone: true, ..waiting });
        }
    }

    /// How many statements had each of the sizes.
    pub(super) fn counts(&self) -> [u64; SIZES.len()] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The place of a query among those that wait. Dropped, it is given up: its client is gone, or has its answer.
pub(super) struct Place {
    batches: Arc<Batches>,
    number: u64,
}

impl Place {
    /// Gives it up. Returns whether the query still waited.
    pub(super) fn leave(&self) -> bool {
        let mut queue = self.batches.lock();
        let place = queue.waiting.iter().position(|waiting| waiting.number == self.number);
        place.and_then(|place| queue.waiting.remove(place)).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The right to run statements, which ends when it is dropped.
pub(super) struct Turn {
    batches: Arc<Batches>,
}

impl Turn {
    /// Whether a query waits. Otherwise the right ends, so that the next query takes it.
    pub(super) fn goes_on(self) -> Option<Self> {
        let goes_on = !self.batches.lock().waiting.is_empty();
        goes_on.then_some(self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.batches.lock().running -= 1;
    }
}

/// A query that waits for its statement, or for its rows.
pub(super) struct Waiting {
    number: u64,
    pub(super) select: Select,
    answer: Box<dyn Answer>,
    /// Counts it until its statement begins.
    pending: Option<Pending>,
    /// Whether it shares no statement, because one was slow.
    goes_alone: bool,
}

impl Waiting {
    fn goes_with(&self, other: &Self) -> bool {
        !self.goes_alone && !other.goes_alone && self.select.has_shape_of(&other.select)
    }
}

/// Counts a request while it waits for a connection.
pub(super) struct Pending(Arc<AtomicUsize>);

impl Pending {
    pub(super) fn count(pending: &Arc<AtomicUsize>) -> Self {
        pending.fetch_add(1, Ordering::Relaxed);
        Self(pending.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who waits for the rows of a query.
pub(super) trait Answer: Send + 'static {
    fn row(&mut self, row: Row<'_>) -> Result<(), sqlx::Error>;
    /// Forgets the rows so far.
    fn restart(&mut self);
    fn end(self: Box<Self>, outcome: Result<(), Error>);
}

/// Collects rows in what `new` returns.
pub(super) struct Collector<T, N, F> {
    rows: T,
    new: N,
    each: F,
    done: oneshot::Sender<Result<T, Error>>,
}

impl<T, N: Fn() -> T, F> Collector<T, N, F> {
    pub(super) fn new(new: N, each: F, done: oneshot::Sender<Result<T, Error>>) -> Self {
        Self { rows: new(), new, each, done }
    }
}

impl<T, N, F> Answer for Collector<T, N, F>
where
    T: Send + 'static,
    N: Fn() -> T + Send + 'static,
    F: FnMut(&mut T, Row<'_>) -> Result<(), sqlx::Error> + Send + 'static,
{
    fn row(&mut self, row: Row<'_>) -> Result<(), sqlx::Error> {
        (self.each)(&mut self.rows, row)
    }

    fn restart(&mut self) {
        self.rows = (self.new)();
    }

    fn end(self: Box<Self>, outcome: Result<(), Error>) {
        // A client that is gone needs no answer.
        let Self { rows, done, .. } = *self;
        let _ = done.send(outcome.map(|()| rows));
    }
}

/// The queries of one statement, while its rows arrive.
pub(super) struct Batch {
    /// Each until it was answered.
    queries: Vec<Option<Waiting>>,
    /// The number of the query whose rows arrive.
    current: usize,
}

impl Batch {
    pub(super) fn new(queries: Vec<Waiting>) -> Self {
        let begun = queries.into_iter().map(|mut query| {
            drop(query.pending.take());
            Some(query)
        });
        Self { queries: begun.collect(), current: 0 }
    }

    pub(super) fn selects(&self) -> Vec<&Select> {
        self.queries.iter().flatten().map(|query| &query.select).collect()
    }

    /// Passes a row to its query, or None if that query has no rows. The queries before it are complete then.
    ///
    /// # Errors
    /// When the row is of none of the queries whose rows can follow.
    pub(super) fn row(&mut self, number: usize, row: Option<Row<'_>>) -> Result<(), sqlx::Error> {
        if number < self.current || number >= self.queries.len() {
            return Err(sqlx::Error::Protocol(format!("a row of query {number} after those of {}", self.current)));
        }
        self.complete_before(number);
        let Some(query) = &mut self.queries[number] else { return Ok(()) };
        if let Some(Err(cause)) = row.map(|row| query.answer.row(row))
            && let Some(query) = self.queries[number].take()
        {
            query.answer.end(Err(cause.into()));
        }
        Ok(())
    }

    fn complete_before(&mut self, number: usize) {
        for query in self.queries[self.current..number].iter_mut().filter_map(Option::take) {
            query.answer.end(Ok(()));
        }
        self.current = number;
    }

    /// Whether its statement has one query only.
    pub(super) fn is_single(&self) -> bool {
        self.queries.len() == 1
    }

    /// Answers all that are left.
    pub(super) fn end(mut self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => self.complete_before(self.queries.len()),
            Err(error) => {
                for query in self.queries.into_iter().flatten() {
                    query.answer.end(Err(error.clone()));
                }
            }
        }
    }
}
