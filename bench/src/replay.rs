//! The replay generator: requests encoded once and sent again and again over plain sockets, answers read raw and checked for
//! errors only. It costs about 0.2 ns a byte and 1–2 µs a request, where librdkafka costs several times what a broker does,
//! so that what is left to see is the broker.
//!
//! - `frames` a Produce and a Fetch request as bytes with places to patch; what is looked at in their answers
//! - `produce` many connections, each with requests in flight, driven by one thread
//! - `fetch` one connection a thread, the next offset as soon as the last answer is in
//! - `latencies` percentiles · `cores` the broker on one core, the generator on another
//! - `page_cache` files that have to come from the disk

pub mod cores;
pub mod fetch;
pub mod frames;
pub mod latencies;
pub mod page_cache;
pub mod produce;
