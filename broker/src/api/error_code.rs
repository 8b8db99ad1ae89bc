//! The only file that speaks Kafka's error codes.

use crate::fetch_session::FetchSessionError;
use crate::quorum::{ControllerUnavailable, SubmitError};
use crate::replica_manager::append::ProduceError;
use crate::replica_manager::partition::DeleteRecordsError;
use crate::replica_manager::read::ReadError;
use kafka_protocol::ResponseError;
use replication::controller::{
    AllocateProducerIdsError, AlterConfigError, ConfigRejection, CreatePartitionsError,
    CreateTopicError, DeleteTopicError, TooManyPartitions,
};
use replication::partition::acks::AckError;
use std::sync::Arc;
use storage::log::{AppendError, LogError, ReadError as LogReadError};
use storage::log_validator::ValidationError;
use storage::producer_state::ProducerStateError;

/// An error that a client is told by a code.
pub trait ToErrorCode {
    /// Kafka's code for it. No `_` arm: a new variant must choose its code.
    fn to_error_code(&self) -> ResponseError;
}

impl ToErrorCode for FetchSessionError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            FetchSessionError::IdNotFound => ResponseError::FetchSessionIdNotFound,
            FetchSessionError::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
            FetchSessionError::TopicIdMismatch => ResponseError::FetchSessionTopicIdError,
        }
    }
}

impl ToErrorCode for ReadError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            ReadError::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            ReadError::UnknownTopicId => ResponseError::UnknownTopicId,
            ReadError::NotLeader { .. } => ResponseError::NotLeaderOrFollower,
            ReadError::FencedLeaderEpoch { .. } => ResponseError::FencedLeaderEpoch,
            ReadError::UnknownLeaderEpoch { .. } => ResponseError::UnknownLeaderEpoch,
            ReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
            ReadError::NegativeLimit => ResponseError::UnknownServerError,
            ReadError::UnsupportedTimestamp => ResponseError::UnsupportedVersion,
            ReadError::OffsetNotAvailable => ResponseError::OffsetNotAvailable,
            ReadError::Log(error) => error.to_error_code(),
        }
    }
}

impl ToErrorCode for ProduceError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            ProduceError::TransactionsUnavailable => {
                ResponseError::TransactionalIdAuthorizationFailed
            }
            ProduceError::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
            ProduceError::UnknownTopicId => ResponseError::UnknownTopicId,
            ProduceError::NoRecords => ResponseError::InvalidRecord,
            ProduceError::UnsupportedCompression => ResponseError::UnsupportedCompressionType,
            ProduceError::InvalidRequiredAcks => ResponseError::InvalidRequiredAcks,
            ProduceError::InternalTopic => ResponseError::InvalidTopicException,
            ProduceError::NotLeader { .. } => ResponseError::NotLeaderOrFollower,
            ProduceError::NotEnoughReplicas(_) => ResponseError::NotEnoughReplicas,
            ProduceError::NotAcknowledged(AckError::NotLeader { .. }) => {
                ResponseError::NotLeaderOrFollower
            }
            ProduceError::NotAcknowledged(AckError::NotEnoughReplicasAfterAppend { .. }) => {
                ResponseError::NotEnoughReplicasAfterAppend
            }
            ProduceError::DiskFailed => ResponseError::KafkaStorageError,
            ProduceError::TimedOut => ResponseError::RequestTimedOut,
            ProduceError::Invalid(error) => error.to_error_code(),
            ProduceError::Append(error) => error.to_error_code(),
        }
    }
}

impl ToErrorCode for DeleteRecordsError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            DeleteRecordsError::InternalTopic => ResponseError::InvalidTopicException,
            DeleteRecordsError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
            DeleteRecordsError::Read(error) => error.to_error_code(),
            DeleteRecordsError::Log(error) => error.to_error_code(),
        }
    }
}

impl<E: ToErrorCode> ToErrorCode for Arc<E> {
    fn to_error_code(&self) -> ResponseError {
        E::to_error_code(self)
    }
}

impl ToErrorCode for std::convert::Infallible {
    fn to_error_code(&self) -> ResponseError {
        match *self {}
    }
}

impl<E: ToErrorCode> ToErrorCode for SubmitError<E> {
    fn to_error_code(&self) -> ResponseError {
        match self {
            SubmitError::Refused(error) => error.to_error_code(),
            SubmitError::Unavailable(error) => error.to_error_code(),
        }
    }
}

impl ToErrorCode for ControllerUnavailable {
    fn to_error_code(&self) -> ResponseError {
        match self {
            ControllerUnavailable::NotActive { .. } | ControllerUnavailable::LostLeadership => {
                ResponseError::NotController
            }
            ControllerUnavailable::Overloaded | ControllerUnavailable::Stopped => {
                ResponseError::RequestTimedOut
            }
            ControllerUnavailable::TooLarge { .. } => ResponseError::PolicyViolation,
        }
    }
}

impl ToErrorCode for AllocateProducerIdsError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            // What Kafka answers while its first block is on the way; every client retries it.
            AllocateProducerIdsError::StaleBrokerEpoch(_) => {
                ResponseError::CoordinatorLoadInProgress
            }
            AllocateProducerIdsError::Exhausted => ResponseError::UnknownServerError,
        }
    }
}

impl ToErrorCode for LogError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            LogError::Disk(_) | LogError::Damaged { .. } => ResponseError::KafkaStorageError,
            LogError::Deleted { .. } => ResponseError::NotLeaderOrFollower,
        }
    }
}

impl ToErrorCode for AppendError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            AppendError::Log(error) => error.to_error_code(),
            AppendError::Producer(error) => error.to_error_code(),
            AppendError::LargerThanSegment { .. } => ResponseError::RecordListTooLarge,
            AppendError::Corrupt { .. } => ResponseError::CorruptMessage,
            AppendError::OffsetOutOfOrder { .. } | AppendError::OffsetsExhausted { .. } => {
                ResponseError::UnknownServerError
            }
        }
    }
}

impl ToErrorCode for ValidationError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            ValidationError::NoBatch { .. }
            | ValidationError::MoreThanOneBatch
            | ValidationError::OldMagic { .. }
            | ValidationError::NonZeroBaseOffset { .. }
            | ValidationError::WrongCounts { .. }
            | ValidationError::ControlBatch
            | ValidationError::IncompleteProducer { .. }
            | ValidationError::Records(_)
            | ValidationError::WrongOffsetDelta { .. }
            | ValidationError::InvalidRecords { .. } => ResponseError::InvalidRecord,
            ValidationError::UnknownMagic { .. }
            | ValidationError::ImpossibleLength { .. }
            | ValidationError::WrongCrc { .. } => ResponseError::CorruptMessage,
            ValidationError::TooLarge { .. }
            | ValidationError::ConvertedTooLarge { .. }
            | ValidationError::DecompressedTooLarge { .. } => ResponseError::MessageTooLarge,
            // As Kafka 4.1 says to bytes that do not decompress.
            ValidationError::UnknownCompression { .. } | ValidationError::Compression(_) => {
                ResponseError::UnknownServerError
            }
            ValidationError::InvalidTimestamps { .. } => ResponseError::InvalidTimestamp,
        }
    }
}

impl ToErrorCode for TooManyPartitions {
    fn to_error_code(&self) -> ResponseError {
        ResponseError::PolicyViolation
    }
}

impl ToErrorCode for CreateTopicError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            CreateTopicError::DuplicateInRequest
            | CreateTopicError::ClusterMetadata
            | CreateTopicError::CountsWithAssignment => ResponseError::InvalidRequest,
            CreateTopicError::InvalidName(_) => ResponseError::InvalidTopicException,
            CreateTopicError::AlreadyExists { .. } => ResponseError::TopicAlreadyExists,
            CreateTopicError::Config(rejection) => rejection.to_error_code(),
            CreateTopicError::Assignment(_) => ResponseError::InvalidReplicaAssignment,
            CreateTopicError::InvalidReplicationFactor(_) | CreateTopicError::Placement(_) => {
                ResponseError::InvalidReplicationFactor
            }
            CreateTopicError::InvalidPartitionCount(_) => ResponseError::InvalidPartitions,
        }
    }
}

impl ToErrorCode for DeleteTopicError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            DeleteTopicError::DuplicateInRequest | DeleteTopicError::ByNameAndId { .. } => {
                ResponseError::InvalidRequest
            }
            DeleteTopicError::UnknownTopic => ResponseError::UnknownTopicOrPartition,
            DeleteTopicError::UnknownTopicId => ResponseError::UnknownTopicId,
        }
    }
}

impl ToErrorCode for CreatePartitionsError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            CreatePartitionsError::DuplicateInRequest => ResponseError::InvalidRequest,
            CreatePartitionsError::UnknownTopic => ResponseError::UnknownTopicOrPartition,
            CreatePartitionsError::NoIncrease { .. } => ResponseError::InvalidPartitions,
            CreatePartitionsError::Assignment(_) => ResponseError::InvalidReplicaAssignment,
            CreatePartitionsError::Placement(_) => ResponseError::InvalidReplicationFactor,
        }
    }
}

impl ToErrorCode for ConfigRejection {
    fn to_error_code(&self) -> ResponseError {
        match self {
            ConfigRejection::InvalidConfig(_) => ResponseError::InvalidConfig,
            ConfigRejection::InvalidRequest(_) => ResponseError::InvalidRequest,
        }
    }
}

impl ToErrorCode for AlterConfigError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            AlterConfigError::DuplicateResource
            | AlterConfigError::DuplicateName(_)
            | AlterConfigError::NullValue(_) => ResponseError::InvalidRequest,
            AlterConfigError::NotAList(_) => ResponseError::InvalidConfig,
            AlterConfigError::UnknownTopic => ResponseError::UnknownTopicOrPartition,
            AlterConfigError::UnknownBroker(_) => ResponseError::BrokerIdNotRegistered,
            AlterConfigError::Rejected(rejection) => rejection.to_error_code(),
        }
    }
}

impl ToErrorCode for LogReadError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            LogReadError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
            // The caller plans again; should it give up, the client asks again.
            LogReadError::Superseded => ResponseError::NotLeaderOrFollower,
            LogReadError::Corrupt { .. } | LogReadError::NotInMemory => {
                ResponseError::KafkaStorageError
            }
            LogReadError::Log(error) => error.to_error_code(),
        }
    }
}

impl ToErrorCode for ProducerStateError {
    fn to_error_code(&self) -> ResponseError {
        match self {
            ProducerStateError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
            ProducerStateError::OutOfOrderSequence { .. } => {
                ResponseError::OutOfOrderSequenceNumber
            }
            ProducerStateError::InvalidTransactionState { .. } => ResponseError::InvalidTxnState,
            ProducerStateError::CoordinatorFenced { .. } => {
                ResponseError::TransactionCoordinatorFenced
            }
        }
    }
}
