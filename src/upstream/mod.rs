//! The way to the backend: endpoints, connections, breakers, sending.
