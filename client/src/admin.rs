//! What an administrator asks of a cluster. Each function is one request, tried again while the error may pass, and
//! answered per topic or partition: one that fails does not hide the others.

mod configs;
mod offsets;
mod topics;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeClusterRequest;
use kafka_protocol::protocol::Request;

use crate::cluster::{BrokerAddress, Cluster};
use crate::error::{ClientError, KafkaError};
use crate::versions::Feature;

pub use configs::{ConfigEntry, ConfigOperation, ConfigResource, ConfigSource};
pub use offsets::{IsolationLevel, ListedOffset, OffsetSpec};
pub use topics::{CreatedTopic, NewTopic};

/// The cluster itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Its id.
    pub cluster_id: Option<String>,
    /// The broker that takes admin requests.
    pub controller: Option<i32>,
    /// By id, the fenced ones too where the broker tells.
    pub brokers: Vec<DescribedBroker>,
    /// By name, as the broker that answered knows them.
    pub features: Vec<Feature>,
    /// Which version of the feature levels that is.
    pub finalized_features_epoch: Option<i64>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedBroker {
    /// Id, address, rack.
    pub address: BrokerAddress,
    /// Registered and not serving.
    pub is_fenced: bool,
}

/// Admin requests on a cluster. Cheap to make.
#[derive(Clone, Debug)]
pub struct Admin {
    cluster: Cluster,
}

impl Admin {
    /// Uses the cluster's connections.
    pub fn new(cluster: &Cluster) -> Admin {
        Admin { cluster: cluster.clone() }
    }

    /// The cluster, its brokers and features. Brokers before 2.8 have no request for it; there Metadata answers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, ClientError> {
        let connection = self.cluster.any_broker().await?;
        // Asked now, since the levels may have changed since the connection was made.
        let versions = connection.ask_versions().await?;
        let features = versions.features().to_vec();
        let finalized_features_epoch = versions.finalized_features_epoch();
        let Ok(version) = connection.version_of::<DescribeClusterRequest>() else {
            let metadata = self.cluster.metadata(Some(&[])).await?;
            let brokers = metadata.brokers.into_iter();
            return Ok(ClusterDescription {
                cluster_id: metadata.cluster_id,
                controller: metadata.controller,
                brokers: brokers
                    .map(|address| DescribedBroker { address, is_fenced: false })
                    .collect(),
                features,
                finalized_features_epoch,
            });
        };
        let request = DescribeClusterRequest::default().with_include_fenced_brokers(version >= 2);
        let response = connection.call_version(version, &request).await?;
        let message = response.error_message.as_deref();
        KafkaError::check(response.error_code, message)
            .map_err(|e| ClientError::kafka("DescribeCluster", e))?;
        let mut brokers: Vec<DescribedBroker> = response
            .brokers
            .into_iter()
            .map(|broker| DescribedBroker {
                address: BrokerAddress {
                    id: broker.broker_id.0,
                    host: broker.host.to_string(),
                    port: broker.port,
                    rack: broker.rack.map(|rack| rack.to_string()),
                },
                is_fenced: broker.is_fenced,
            })
            .collect();
        brokers.sort_by_key(|broker| broker.address.id);
        Ok(ClusterDescription {
            cluster_id: Some(response.cluster_id.to_string()),
            controller: (response.controller_id.0 >= 0).then_some(response.controller_id.0),
            brokers,
            features,
            finalized_features_epoch,
        })
    }

    /// One request to the controller, tried again while connections break or the controller moves. `answer` turns the
    /// response into a result; NOT_CONTROLLER as its error asks for the new one.
    async fn on_controller<R: Request, T>(
        &self,
        subject: &str,
        request: impl Fn(i16) -> R,
        answer: impl Fn(R::Response) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.cluster
            .retrying(subject, || async {
                let connection = self.cluster.controller().await?;
                let version = connection.version_of::<R>()?;
                let result = match connection.call_version(version, &request(version)).await {
                    Ok(response) => answer(response),
                    Err(error) => Err(error.into()),
                };
                if let Err(ClientError::Connection(_)) = &result {
                    self.cluster.forget_controller();
                }
                if result.as_ref().err().and_then(ClientError::kafka_error)
                    == Some(ResponseError::NotController)
                {
                    self.cluster.forget_controller();
                }
                result
            })
            .await
    }

    /// How long the broker may work on a request, for its own timeout field.
    fn request_timeout_ms(&self) -> i32 {
        i32::try_from(self.cluster.config().connection.request_timeout.as_millis())
            .unwrap_or(i32::MAX)
    }
}
