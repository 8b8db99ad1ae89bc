//! What clients do while the broker runs: topics are made and deleted, and one writer for each partition writes.

use std::sync::Arc;

use client::connection::Connection;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::world::{TopicState, World};
use crate::power::ledger::Ledger;
use crate::power::load::{self, Ending};

type Configs = &'static [(&'static str, &'static str)];

/// Topics that are made first and stay: name, partitions, settings.
const TOPICS: [(&str, i32, Configs); 3] = [
    ("plain", 2, &[]),
    ("rolling", 2, &[("segment.ms", "25"), ("index.interval.bytes", "300")]),
    (
        "retained",
        2,
        &[("segment.ms", "25"), ("retention.bytes", "60000"), ("file.delete.delay.ms", "5")],
    ),
];
const RETAINED: &str = "retained";
/// Topics that come and go are never more.
const MAX_CHURN: usize = 5;
const TIMEOUT_MS: i32 = 10_000;

type Writer = JoinHandle<(Ledger, Result<(), String>)>;

/// Clients at work.
#[derive(Debug)]
pub struct Working {
    task: JoinHandle<(World, Result<(), String>)>,
    made: oneshot::Receiver<()>,
}

/// Starts them; they have the world until [`Working::end`].
pub fn start(address: &str, world: World, random: &mut StdRng, ending: &Arc<Ending>) -> Working {
    let (sender, made) = oneshot::channel();
    let site = Site {
        address: address.to_owned(),
        ending: Arc::clone(ending),
        random: StdRng::from_rng(random),
        writers: Vec::new(),
    };
    Working { task: tokio::spawn(site.work(world, sender)), made }
}

impl Working {
    /// Waits until the topics that stay are there, or cannot be made.
    pub async fn topics_made(&mut self) {
        // Gone without a word: the end says why.
        let _ = (&mut self.made).await;
    }

    /// Waits for their end, which comes with the broker's; what went wrong before the cut.
    pub async fn end(self) -> (World, Result<(), String>) {
        self.task.await.expect("a panic here is a bug of the test")
    }
}

struct Site {
    address: String,
    ending: Arc<Ending>,
    random: StdRng,
    writers: Vec<Writer>,
}

impl Site {
    async fn work(
        mut self,
        mut world: World,
        made: oneshot::Sender<()>,
    ) -> (World, Result<(), String>) {
        self.start_writers(&mut world);
        let mut worked = self.administer(&mut world, made).await;
        if self.ending.has_begun() {
            worked = Ok(());
        }
        for writer in self.writers {
            let (ledger, written) = writer.await.expect("a panic here is a bug of the test");
            worked = worked.and(written);
            world.ledgers.push(ledger);
        }
        // So that the same seed meets them in the same order.
        world.ledgers.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let new: Vec<i64> =
            world.ledgers.iter_mut().filter_map(Ledger::take_new_producer).collect();
        for producer_id in new {
            worked = worked.and(world.note_producer_id(producer_id));
        }
        (world, worked)
    }

    fn start_writers(&mut self, world: &mut World) {
        // Who deletes a topic must not be surprised that its writer is refused.
        for mut ledger in world.ledgers.extract_if(.., |ledger| !is_churn(&ledger.topic)) {
            let (address, ending) = (self.address.clone(), Arc::clone(&self.ending));
            let random = StdRng::from_rng(&mut self.random);
            self.writers.push(tokio::spawn(async move {
                let written = load::write(&address, &mut ledger, usize::MAX, random, &ending).await;
                (ledger, written)
            }));
        }
    }

    async fn administer(
        &mut self,
        world: &mut World,
        made: oneshot::Sender<()>,
    ) -> Result<(), String> {
        let connection = load::connect(&self.address).await?;
        for (name, partitions, configs) in TOPICS {
            if world.topics.get(name) != Some(&TopicState::Exists) {
                create(&connection, world, name, partitions, configs, &self.ending).await?;
                self.start_writers(world);
            }
        }
        let _ = made.send(());
        loop {
            let churn: Vec<String> = world
                .topics
                .iter()
                .filter(|(name, state)| is_churn(name) && **state == TopicState::Exists)
                .map(|(name, _)| name.clone())
                .collect();
            if churn.len() >= MAX_CHURN || (!churn.is_empty() && self.random.random_bool(0.4)) {
                let name = &churn[self.random.random_range(0..churn.len())];
                delete(&connection, world, name, &self.ending).await?;
                world.ledgers.retain(|ledger| ledger.topic != *name);
                continue;
            }
            let name = format!("churn-{}", world.next_number());
            let partitions = self.random.random_range(1..4);
            create(&connection, world, &name, partitions, &[], &self.ending).await?;
            // Into some of their partitions: the others have no directory yet.
            for ledger in world.ledgers.iter_mut().filter(|ledger| is_churn(&ledger.topic)) {
                let enough = self.random.random_range(0..6);
                if enough < 4 {
                    let random = StdRng::from_rng(&mut self.random);
                    load::write(&self.address, ledger, enough, random, &self.ending).await?;
                }
            }
        }
    }
}

async fn create(
    connection: &Connection,
    world: &mut World,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
    ending: &Ending,
) -> Result<(), String> {
    let configs = configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    world.topics.insert(name.to_owned(), TopicState::Either);
    for partition in 0..partitions {
        let mut ledger = Ledger::new(name, partition, world.next_number());
        ledger.is_retained = name == RETAINED;
        ledger.begin(world.incarnation);
        world.ledgers.push(ledger);
    }
    let answer = connection.call(&request).await.map_err(|error| error.to_string())?;
    let code = answer.topics.first().map_or(-1, |topic| topic.error_code);
    if let Some(error) = ResponseError::try_from_code(code) {
        return Err(format!("creating topic {name} was answered {error}"));
    }
    if ending.power_goes() {
        return Err(format!("creating topic {name} was answered after the power went"));
    }
    world.topics.insert(name.to_owned(), TopicState::Exists);
    Ok(())
}

async fn delete(
    connection: &Connection,
    world: &mut World,
    name: &str,
    ending: &Ending,
) -> Result<(), String> {
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text(name))));
    let request =
        DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    world.topics.insert(name.to_owned(), TopicState::Either);
    let answer = connection.call(&request).await.map_err(|error| error.to_string())?;
    let code = answer.responses.first().map_or(-1, |topic| topic.error_code);
    if let Some(error) = ResponseError::try_from_code(code) {
        return Err(format!("deleting topic {name} was answered {error}"));
    }
    if ending.power_goes() {
        return Err(format!("deleting topic {name} was answered after the power went"));
    }
    world.topics.insert(name.to_owned(), TopicState::Gone);
    Ok(())
}

/// Topics that come and go.
fn is_churn(topic: &str) -> bool {
    topic.starts_with("churn-")
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
