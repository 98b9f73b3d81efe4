//! Combines waiting queries into one statement.
//!
//! While a statement of a worker is running, its other queries wait in a queue. Then all waiting queries with the same SQL
//! become the next statement, as in the group commit of databases. There is no timer: a query that does not have to wait
//! starts immediately, and batches grow with the load.
//!
//! A slow statement delays the others for 10 ms only: then the next one starts on another connection. A statement of several
//! queries that is slower still is cancelled, as is one that fails, and each of its queries is repeated alone.

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
/// The next statement of a worker waits for the one before for this time at most.
pub(super) const SLOW_AFTER: Duration = Duration::from_millis(10);

/// One statement for all of these queries, which differ in their values only. The first column of each row is the number of
/// its query.
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

/// The waiting queries of one worker.
pub(super) struct Queue {
    state: Mutex<State>,
    /// The number of statements of each size, of all workers.
    counts: Arc<[AtomicU64; SIZES.len()]>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Query>,
    /// The number of the next query.
    next: u64,
    /// Whether a statement is running that is not slow.
    is_running: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), counts: Arc::default() }
    }

    /// An empty queue for another worker.
    pub(super) fn for_worker(&self) -> Self {
        Self { state: Mutex::default(), counts: self.counts.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a query.
    pub(super) fn push(self: &Arc<Self>, select: Select, receiver: impl Receiver, pending: Pending) -> Ticket {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let receiver = Box::new(receiver);
        state.waiting.push_back(Query { number, select, receiver, pending: Some(pending), is_alone: false });
        Ticket { queue: self.clone(), number: Some(number) }
    }

    /// The permit to run statements, if a query waits and no statement is running.
    pub(super) fn permit(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.lock();
        if state.is_running || state.waiting.is_empty() {
            return None;
        }
        state.is_running = true;
        Some(Permit(Some(self.clone())))
    }

    /// Takes the query that waits longest, and those that can share its statement.
    pub(super) fn next_batch(&self) -> Vec<Query> {
        let mut state = self.lock();
        state.waiting.retain(|query| query.receiver.is_connected());
        let Some(first) = state.waiting.front() else { return Vec::new() };
        let alike = state.waiting.iter().filter(|query| query.can_share_with(first)).count().max(1);
        let (index, size) = (0..).zip(SIZES).find(|(_, size)| *size <= alike).expect("there is at least one");
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        if size == 1 || alike == state.waiting.len() {
            return state.waiting.drain(..size).collect();
        }
        let mut batch: Vec<Query> = state.waiting.pop_front().into_iter().collect();
        for query in mem::take(&mut state.waiting) {
            if batch.len() < size && query.can_share_with(&batch[0]) {
                batch.push(query);
            } else {
                state.waiting.push_back(query);
            }
        }
        batch
    }

    /// Puts the unanswered queries of a statement back, before all others. Each is repeated alone.
    pub(super) fn put_back(&self, batch: Batch, pending: impl Fn() -> Pending) {
        let queries = batch.queries.into_iter().flatten().filter(|query| query.receiver.is_connected());
        let mut queries: Vec<_> =
            queries.map(|query| Query { pending: Some(pending()), is_alone: true, ..query }).collect();
        for query in &mut queries {
            query.receiver.restart();
        }
        let mut state = self.lock();
        for query in queries.into_iter().rev() {
            state.waiting.push_front(query);
        }
    }

    /// The number of statements of each size that were sent.
    pub(super) fn counts(&self) -> [u64; SIZES.len()] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The handle of a query. Dropped, it cancels the query if that waits.
pub(super) struct Ticket {
    queue: Arc<Queue>,
    number: Option<u64>,
}

impl Ticket {
    /// Removes the query from the queue. Returns whether it was repeated, or None if it does not wait.
    pub(super) fn cancel(&self) -> Option<bool> {
        let mut state = self.queue.lock();
        let position = state.waiting.iter().position(|query| Some(query.number) == self.number)?;
        state.waiting.remove(position).map(|query| query.is_alone)
    }

    /// Ends the handle of a query that was answered.
    pub(super) fn answered(&mut self) {
        self.number = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.number.is_some() {
            self.cancel();
        }
    }
}

/// The permit to run the statements of a worker, which ends when it is dropped. After a panic, the next query starts them
/// again.
pub(super) struct Permit(Option<Arc<Queue>>);

impl Permit {
    /// The permit for the next statement. None if no query waits: then the permit has ended, so that the next query gets it.
    pub(super) fn renew(mut self) -> Option<Self> {
        let queue = self.0.take()?;
        let mut state = queue.lock();
        state.is_running = !state.waiting.is_empty();
        let is_running = state.is_running;
        drop(state);
        is_running.then_some(Self(Some(queue)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(queue) = &self.0 {
            queue.lock().is_running = false;
        }
    }
}

/// A query that waits for its statement, or for its rows.
pub(super) struct Query {
    number: u64,
    pub(super) select: Select,
    receiver: Box<dyn Receiver>,
    /// Counts it until its statement begins.
    pending: Option<Pending>,
    /// Whether it shares no statement, because one was slow or failed.
    is_alone: bool,
}

impl Query {
    fn can_share_with(&self, other: &Self) -> bool {
        !self.is_alone && !other.is_alone && self.select.differs_in_values_only(&other.select)
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

/// The receiver of the rows of a query.
pub(super) trait Receiver: Send + 'static {
    fn row(&mut self, row: Row<'_>) -> Result<(), sqlx::Error>;
    /// Discards the rows so far.
    fn restart(&mut self);
    fn end(self: Box<Self>, outcome: Result<(), Error>);
    /// Whether the request still waits for the rows.
    fn is_connected(&self) -> bool;
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

impl<T, N, F> Receiver for Collector<T, N, F>
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
        let Self { rows, done, .. } = *self;
        // The client may have disconnected.
        let _ = done.send(outcome.map(|()| rows));
    }

    fn is_connected(&self) -> bool {
        !self.done.is_closed()
    }
}

/// The queries of one statement, while its rows arrive.
pub(super) struct Batch {
    /// Each until it was answered.
    queries: Vec<Option<Query>>,
    /// The number of the query whose rows arrive.
    current: usize,
}

impl Batch {
    pub(super) fn new(queries: Vec<Query>) -> Self {
        let begun = queries.into_iter().map(|mut query| {
            drop(query.pending.take());
            Some(query)
        });
        Self { queries: begun.collect(), current: 0 }
    }

    pub(super) fn selects(&self) -> Vec<&Select> {
        self.queries.iter().flatten().map(|query| &query.select).collect()
    }

    /// The number of columns of each query.
    pub(super) fn columns(&self) -> usize {
        self.selects().first().map_or(0, |select| select.columns())
    }

    pub(super) const fn is_single(&self) -> bool {
        self.queries.len() == 1
    }

    /// Passes a row to its query. None if that query has no rows. Every engine executes the parts of a `UNION ALL` in order,
    /// so the queries before it are complete.
    ///
    /// # Errors
    /// When the order is another one.
    pub(super) fn row(&mut self, number: usize, row: Option<Row<'_>>) -> Result<(), sqlx::Error> {
        if number < self.current || number >= self.queries.len() {
            return Err(sqlx::Error::Protocol(format!("a row of query {number} after those of {}", self.current)));
        }
        self.complete_before(number);
        let Some(query) = &mut self.queries[number] else { return Ok(()) };
        if let Some(Err(cause)) = row.map(|row| query.receiver.row(row))
            && let Some(query) = self.queries[number].take()
        {
            query.receiver.end(Err(cause.into()));
        }
        Ok(())
    }

    fn complete_before(&mut self, number: usize) {
        for query in self.queries[self.current..number].iter_mut().filter_map(Option::take) {
            query.receiver.end(Ok(()));
        }
        self.current = number;
    }

    /// Answers all queries that are left.
    pub(super) fn end(mut self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) => self.complete_before(self.queries.len()),
            Err(error) => {
                for query in self.queries.into_iter().flatten() {
                    query.receiver.end(Err(error.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<Vec<i64>, Error>>;

    fn push(queue: &Arc<Queue>, table: &'static str) -> (Ticket, Answer) {
        let (done, answer) = oneshot::channel();
        let each = |ids: &mut Vec<i64>, row: Row<'_>| {
            ids.push(row.integer(0)?);
            Ok(())
        };
        let select = Select::of(["id"].into_iter(), table);
        let pending = Pending::count(&Arc::default());
        (queue.push(select, Collector::new(Vec::new, each, done), pending), answer)
    }

    fn numbers(batch: &[Query]) -> Vec<u64> {
        batch.iter().map(|query| query.number).collect()
    }

    #[test]
    fn only_queries_with_the_same_sql_share_a_statement() {
        let queue = Arc::new(Queue::new());
        let tables = ["a", "b", "a", "a", "b", "a", "a"];
        let waiting = tables.map(|table| push(&queue, table));
        assert_eq!(numbers(&queue.next_batch()), [0, 2, 3, 5]);
        drop(waiting);
        assert!(queue.next_batch().is_empty(), "their requests are gone");
    }

    #[test]
    fn sizes_are_few_and_the_order_is_that_of_arrival() {
        let queue = Arc::new(Queue::new());
        let _waiting: Vec<_> = (0..27).map(|_| push(&queue, "a")).collect();
        let sizes: Vec<_> = (0..5).map(|_| numbers(&queue.next_batch())).collect();
        let expected: [Vec<u64>; 5] = [(0..16).collect(), (16..24).collect(), vec![24, 25], vec![26], Vec::new()];
        assert_eq!(sizes, expected);
        assert_eq!(queue.counts(), [1, 1, 0, 1, 1]);
    }

    #[test]
    fn one_statement_is_running_at_a_time() {
        let queue = Arc::new(Queue::new());
        assert!(queue.permit().is_none(), "no query waits");
        let _waiting = [push(&queue, "a"), push(&queue, "a")];
        let permit = queue.permit().unwrap();
        assert!(queue.permit().is_none());
        let permit = permit.renew().unwrap();
        assert_eq!(queue.next_batch().len(), 2);
        assert!(permit.renew().is_none());
        let _waiting = push(&queue, "a");
        drop(queue.permit());
        assert!(queue.permit().is_some(), "a permit ends when it is dropped");
    }

    #[tokio::test]
    async fn each_row_is_that_of_its_query() {
        let queue = Arc::new(Queue::new());
        let mut waiting = [push(&queue, "a"), push(&queue, "a"), push(&queue, "a"), push(&queue, "a")];
        let mut batch = Batch::new(queue.next_batch());
        for (number, text) in [(0, "1"), (0, "2"), (1, "x"), (1, "3"), (3, "4")] {
            batch.row(number, Some(Row::packed(&[text]))).unwrap();
        }
        assert!(batch.row(1, None).is_err() && batch.row(4, None).is_err(), "the order is another one");
        batch.end(Ok(()));
        let answers = waiting.each_mut().map(|(_, answer)| answer.try_recv().unwrap().ok());
        assert_eq!(answers, [Some(vec![1, 2]), None, Some(vec![]), Some(vec![4])]);
    }

    #[tokio::test]
    async fn a_repeated_query_starts_anew_and_alone() {
        let queue = Arc::new(Queue::new());
        let [mut first, second, third] = [push(&queue, "a"), push(&queue, "a"), push(&queue, "a")];
        let _last = push(&queue, "a");
        let mut batch = Batch::new(queue.next_batch());
        batch.row(0, Some(Row::packed(&["1"]))).unwrap();
        drop(second);
        queue.put_back(batch, || Pending::count(&Arc::default()));
        assert_eq!(third.0.cancel(), Some(true), "it was repeated");
        let mut batch = Batch::new(queue.next_batch());
        assert!(batch.is_single());
        batch.row(0, Some(Row::packed(&["2"]))).unwrap();
        batch.end(Ok(()));
        assert_eq!(first.1.try_recv().unwrap().unwrap(), [2]);
        first.0.answered();
    }
}
