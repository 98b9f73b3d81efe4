//! Combines waiting queries into one statement.
//!
//! While a statement of a worker is running, its other queries wait in a queue. Then all waiting queries with the same SQL
//! become the next statement, as in the group commit of databases. No query waits for others to come: one that is alone
//! starts immediately, in the task of its request, and batches grow with the load.
//!
//! A slow statement delays the others for 2 ms only: then the next one starts on another connection. Slow queries share no
//! statement: after a slow statement, the next one has one query, and each that is not slow doubles the number again. A
//! statement of several queries that is slower still is cancelled, as is one that fails, and each of its queries is repeated
//! alone.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use sqlx::QueryBuilder;
use tokio::sync::oneshot;

use super::dialect::Dialect;
use super::error::Error;
use super::metrics::Metrics;
use super::select::Select;
use super::value::Row;

/// The numbers of queries that a statement may have. They are few, because each is a prepared statement.
pub(super) const SIZES: [usize; 5] = [16, 8, 4, 2, 1];
/// The next statement of a worker waits for the one before for this time, or for twice this time.
pub(super) const NEXT_AFTER: Duration = Duration::from_millis(2);
/// A connection that takes longer to acquire may not open.
pub(super) const ACQUIRED_AFTER: Duration = Duration::from_millis(100);

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
    metrics: Arc<Metrics>,
    /// The most runners at a time.
    runners_max: usize,
}

struct State {
    waiting: VecDeque<Query>,
    /// The number of the next query, runner or statement.
    next: u64,
    /// Tasks that run statements, or wait for a connection. Each needs one connection at most.
    runners: usize,
    /// The one of them that runs the next statement, by its number.
    next_runner: Option<u64>,
    /// The number of the statement that it is executing.
    executing: Option<u64>,
    is_watched: bool,
    /// The most queries of the next statement.
    size_max: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            next: 0,
            runners: 0,
            next_runner: None,
            executing: None,
            is_watched: false,
            size_max: SIZES[0],
        }
    }
}

impl State {
    /// A number that nothing else has.
    const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Notes that the next runner executes a statement.
    const fn begin_statement(&mut self) {
        self.executing = Some(self.number());
    }
}

impl Queue {
    /// An empty queue for a pool with this number of connections.
    pub(super) fn new(connections: usize, metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), metrics, runners_max: connections }
    }

    /// An empty queue for another worker.
    pub(super) fn for_worker(&self) -> Self {
        Self { state: Mutex::default(), metrics: self.metrics.clone(), runners_max: self.runners_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no query waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Adds a query.
    pub(super) fn push(self: &Arc<Self>, select: Select, receiver: impl Receiver, pending: Pending) -> Ticket {
        let mut state = self.lock();
        let number = state.number();
        let receiver = Box::new(receiver);
        state.waiting.push_back(Query { number, select, receiver, pending: Some(pending), is_alone: false });
        Ticket { queue: self.clone(), number: Some(number) }
    }

    /// A new runner for the next statement, if a query waits that no runner will serve.
    pub(super) fn runner(self: &Arc<Self>) -> Option<Runner> {
        self.runner_if(|state| !state.waiting.is_empty())
    }

    /// A new runner for a query that is not in the queue, if none waits and none would have to.
    pub(super) fn runner_for_one(self: &Arc<Self>) -> Option<Runner> {
        self.runner_if(|state| state.waiting.is_empty())
    }

    fn runner_if(self: &Arc<Self>, is_wanted: impl FnOnce(&State) -> bool) -> Option<Runner> {
        let mut state = self.lock();
        if state.next_runner.is_some() || state.runners == self.runners_max || !is_wanted(&state) {
            return None;
        }
        let number = state.number();
        (state.next_runner, state.executing) = (Some(number), None);
        state.runners += 1;
        Some(Runner { queue: self.clone(), number })
    }

    /// Whether the caller must watch the statements: a query waits for one, and nothing else watches it.
    pub(super) fn begin_watch(&self) -> bool {
        let mut state = self.lock();
        let is_unwatched = state.next_runner.is_some() && !state.waiting.is_empty() && !state.is_watched;
        state.is_watched |= is_unwatched;
        is_unwatched
    }

    /// Looks whether the statement that was executing at the last look is executing still. If it is, another runner may
    /// run the next one. Returns whether there is something to watch.
    pub(super) fn watch(&self, last: &mut Option<u64>) -> bool {
        let mut state = self.lock();
        if state.executing.is_some() && state.executing == *last {
            (state.next_runner, state.executing) = (None, None);
        }
        *last = state.executing;
        state.is_watched = state.next_runner.is_some();
        state.is_watched
    }

    /// Notes that the runner of a query that is not in the queue executes it.
    pub(super) fn begin_one(&self, runner: &Runner) {
        let mut state = self.lock();
        if state.next_runner == Some(runner.number) {
            state.begin_statement();
        }
        self.metrics.record_batch(1);
    }

    /// Adapts the sizes of the next statements to the last one.
    pub(super) fn adapt(&self, is_slow: bool) {
        let mut state = self.lock();
        state.size_max = if is_slow { 1 } else { (state.size_max * 2).min(SIZES[0]) };
    }

    /// Takes the query that waits longest, and those that can share its statement.
    pub(super) fn next_batch(&self) -> Vec<Query> {
        let mut state = self.lock();
        if state.next_runner.is_some() {
            state.begin_statement();
        }
        state.waiting.retain(|query| query.receiver.is_connected());
        let Some(first) = state.waiting.front() else { return Vec::new() };
        let alike = state.waiting.iter().filter(|query| query.can_share_with(first)).count().max(1);
        let most = alike.min(state.size_max);
        let size = SIZES.into_iter().find(|size| *size <= most).expect("there is at least one");
        self.metrics.record_batch(size);
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
}

/// The handle of a query. Dropped, it cancels the query if that waits.
pub(super) struct Ticket {
    queue: Arc<Queue>,
    number: Option<u64>,
}

/// Which queries [`Ticket::cancel`] removes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancel {
    /// One that waits for its first statement.
    First,
    /// One that waits.
    Any,
}

impl Ticket {
    /// Removes the query from the queue. Returns whether it was there.
    pub(super) fn cancel(&self, which: Cancel) -> bool {
        let mut state = self.queue.lock();
        let is_it = |query: &Query| Some(query.number) == self.number && (which == Cancel::Any || !query.is_alone);
        let position = state.waiting.iter().position(is_it);
        position.and_then(|position| state.waiting.remove(position)).is_some()
    }

    /// Ends the handle of a query that was answered.
    pub(super) fn answered(&mut self) {
        self.number = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.number.is_some() {
            self.cancel(Cancel::Any);
        }
    }
}

/// A task that runs statements, as the queue counts it.
pub(super) struct Runner {
    queue: Arc<Queue>,
    number: u64,
}

impl Runner {
    /// Whether it runs the next statement, too: a query waits, and no other runner will serve it. Otherwise it ends.
    pub(super) fn goes_on(&self) -> bool {
        let mut state = self.queue.lock();
        if state.next_runner.is_some_and(|next| next != self.number) {
            return false;
        }
        state.next_runner = (!state.waiting.is_empty()).then_some(self.number);
        state.executing = None;
        state.next_runner.is_some()
    }

    /// Leaves the next statement to another runner.
    pub(super) fn yield_next(&self) {
        let mut state = self.queue.lock();
        if state.next_runner == Some(self.number) {
            (state.next_runner, state.executing) = (None, None);
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.yield_next();
        self.queue.lock().runners -= 1;
    }
}

/// A query that waits for its statement, or for its rows.
pub(super) struct Query {
    number: u64,
    select: Select,
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

/// Counts a query or a transaction until it begins, and measures its wait.
pub(super) struct Pending {
    metrics: Arc<Metrics>,
    since: Instant,
    until: Option<Instant>,
}

impl Pending {
    pub(super) fn count(metrics: &Arc<Metrics>) -> Self {
        metrics.pending.inc();
        Self { metrics: metrics.clone(), since: Instant::now(), until: None }
    }

    /// Ends the wait. Returns the time at which the query begins.
    pub(super) fn end(mut self) -> Instant {
        *self.until.insert(Instant::now())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.metrics.pending.dec();
        self.metrics.wait_times.observe((self.until.unwrap_or_else(Instant::now) - self.since).as_secs_f64());
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
    /// Is ready when it does not.
    fn poll_disconnected(&mut self, cx: &mut Context<'_>) -> Poll<()>;
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

    fn poll_disconnected(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.done.poll_closed(cx)
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
        self.queries.iter().flatten().next().map_or(0, |query| query.select.columns())
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

    /// Is ready when no request waits for any of the queries that are left.
    pub(super) fn poll_disconnected(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for query in self.queries.iter_mut().flatten() {
            ready!(query.receiver.poll_disconnected(cx));
        }
        Poll::Ready(())
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

    fn queue(connections: usize) -> Arc<Queue> {
        Arc::new(Queue::new(connections, Arc::new(Metrics::new("none", SIZES))))
    }

    type Answer = oneshot::Receiver<Result<Vec<i64>, Error>>;

    fn push(queue: &Arc<Queue>, table: &'static str) -> (Ticket, Answer) {
        let (done, answer) = oneshot::channel();
        let each = |ids: &mut Vec<i64>, row: Row<'_>| {
            ids.push(row.integer(0)?);
            Ok(())
        };
        let select = Select::of(["id"].into_iter(), table);
        let pending = Pending::count(&queue.metrics);
        (queue.push(select, Collector::new(Vec::new, each, done), pending), answer)
    }

    fn numbers(batch: &[Query]) -> Vec<u64> {
        batch.iter().map(|query| query.number).collect()
    }

    #[test]
    fn only_queries_with_the_same_sql_share_a_statement() {
        let queue = queue(1);
        let tables = ["a", "b", "a", "a", "b", "a", "a"];
        let waiting = tables.map(|table| push(&queue, table));
        assert_eq!(numbers(&queue.next_batch()), [0, 2, 3, 5]);
        drop(waiting);
        assert!(queue.next_batch().is_empty(), "their requests are gone");
    }

    #[test]
    fn sizes_are_few_and_the_order_is_that_of_arrival() {
        let queue = queue(1);
        let _waiting: Vec<_> = (0..27).map(|_| push(&queue, "a")).collect();
        let sizes: Vec<_> = (0..5).map(|_| numbers(&queue.next_batch())).collect();
        let expected: [Vec<u64>; 5] = [(0..16).collect(), (16..24).collect(), vec![24, 25], vec![26], Vec::new()];
        assert_eq!(sizes, expected);
        let sizes = &queue.metrics.batch_sizes;
        assert_eq!((sizes.get_sample_count(), sizes.get_sample_sum()), (4, 27.0));
    }

    #[test]
    fn one_runner_is_the_next_one() {
        let queue = queue(2);
        assert!(queue.runner().is_none(), "no query waits");
        let _waiting = [push(&queue, "a"), push(&queue, "b"), push(&queue, "c")];
        let first = queue.runner().unwrap();
        assert!(queue.runner().is_none() && first.goes_on());
        first.yield_next();
        let second = queue.runner().unwrap();
        assert!(!first.goes_on(), "the second is the next one");
        second.yield_next();
        assert!(queue.runner().is_none(), "there are as many as connections");
        assert!(first.goes_on() && !second.goes_on());
        drop((first, second));
        let third = queue.runner().unwrap();
        while !queue.next_batch().is_empty() {}
        assert!(!third.goes_on());
        let _waiting = push(&queue, "a");
        drop(third);
        assert!(queue.runner().is_some());
    }

    #[test]
    fn a_query_alone_waits_for_none_and_others_wait_for_it() {
        let queue = queue(2);
        let runner = queue.runner_for_one().unwrap();
        queue.begin_one(&runner);
        assert!(!queue.begin_watch(), "no query waits for its statement");
        let _waiting = push(&queue, "a");
        assert!(queue.runner().is_none() && queue.runner_for_one().is_none());
        let mut last = None;
        assert!(queue.begin_watch() && queue.watch(&mut last) && !queue.watch(&mut last), "it is slow");
        assert!(queue.runner_for_one().is_none(), "another query came first");
        drop(runner);
        assert_eq!(queue.metrics.batch_sizes.get_sample_count(), 1);
        assert!(queue.runner().is_some());
    }

    #[test]
    fn a_statement_that_is_executing_at_two_looks_is_slow() {
        let queue = queue(2);
        let _waiting = [push(&queue, "a"), push(&queue, "b"), push(&queue, "c"), push(&queue, "d")];
        let runner = queue.runner().unwrap();
        assert!(queue.begin_watch() && !queue.begin_watch());
        let mut last = None;
        assert!(queue.watch(&mut last) && queue.watch(&mut last), "it waits for a connection");
        assert_eq!(queue.next_batch().len(), 1);
        assert!(queue.watch(&mut last) && runner.goes_on());
        assert_eq!(queue.next_batch().len(), 1);
        assert!(queue.watch(&mut last), "the first was not slow");
        assert!(!queue.watch(&mut last), "the second is");
        let other = queue.runner().unwrap();
        assert!(queue.begin_watch() && !runner.goes_on() && other.goes_on());
    }

    #[test]
    fn slow_queries_share_no_statement() {
        let queue = queue(1);
        let _waiting: Vec<_> = (0..40).map(|_| push(&queue, "a")).collect();
        queue.adapt(true);
        let sizes = [(); 5].map(|()| {
            let size = queue.next_batch().len();
            queue.adapt(false);
            size
        });
        assert_eq!(sizes, [1, 2, 4, 8, 16]);
    }

    #[tokio::test]
    async fn each_packed_row_is_that_of_its_query() {
        let queue = queue(1);
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
    async fn a_repeated_query_starts_anew_and_alone_with_packed_rows() {
        let queue = queue(1);
        let [mut first, second, third] = [push(&queue, "a"), push(&queue, "a"), push(&queue, "a")];
        let _last = push(&queue, "a");
        let mut batch = Batch::new(queue.next_batch());
        batch.row(0, Some(Row::packed(&["1"]))).unwrap();
        drop(second);
        queue.put_back(batch, || Pending::count(&queue.metrics));
        assert!(!third.0.cancel(Cancel::First) && third.0.cancel(Cancel::Any), "it is repeated");
        let mut batch = Batch::new(queue.next_batch());
        assert!(batch.is_single());
        batch.row(0, Some(Row::packed(&["2"]))).unwrap();
        batch.end(Ok(()));
        assert_eq!(first.1.try_recv().unwrap().unwrap(), [2]);
        first.0.answered();
    }
}
