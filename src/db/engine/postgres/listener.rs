//! Notifications (<https://www.postgresql.org/docs/current/sql-notify.html>), on a connection of their own.

use std::convert::Infallible;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::sleep;

/// The pause after a connection that failed.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Calls `wake` for each notification of a channel, and after each new connection, because notifications may have been lost
/// before. Runs until it is dropped.
pub(super) async fn listen(options: PgConnectOptions, channel: &'static str, wake: impl Fn()) -> Infallible {
    loop {
        let outcome: Result<(), sqlx::Error> = async {
            let pool = PgPoolOptions::new().max_connections(1).acquire_slow_threshold(Duration::MAX);
            let pool = pool.connect_lazy_with(options.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(channel).await?;
            wake();
            // `None` is a connection that was lost.
            while listener.try_recv().await?.is_some() {
                wake();
            }
            Ok(())
        }
        .await;
        if let Err(error) = outcome {
            tracing::debug!(error = %error, channel, "notifications are not received");
        }
        sleep(RECONNECT_PAUSE).await;
    }
}
