//! What a log is told to do, by Kafka's names.

/// A topic's settings that its logs follow; the defaults are Kafka's. What a batch is validated against is
/// [`crate::log_validator::ValidationConfig`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`, at most 2^31 - 1.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// What `segment.jitter.ms` takes off `segment.ms` in this log; drawn by the caller.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `retention.ms`; `None` for no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// `flush.messages`; with 1 an ack waits for an fsync.
    pub flush_messages: u64,
    /// `flush.ms`; `None` for never.
    pub flush_ms: Option<u64>,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: u64,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            flush_messages: i64::MAX as u64,
            flush_ms: None,
            file_delete_delay_ms: 60_000,
            producer_id_expiration_ms: 86_400_000,
        }
    }
}

impl LogConfig {
    /// Whether acks, the leader's own end and a follower's next fetch wait for an fsync.
    pub fn flushes_each_message(&self) -> bool {
        self.flush_messages <= 1
    }
}
