//! Listeners, TLS, connections, workers, reload and drain.
