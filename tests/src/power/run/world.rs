//! All that a broker was told, and must know after a cut: its cluster id, its topics, and what is in them.

use std::collections::{BTreeMap, BTreeSet};

use client::connection::Connection;
use kafka_protocol::messages::MetadataRequest;
use rand::RngExt;
use rand::rngs::StdRng;

use super::Plant;
use crate::power::ledger::{Found, Ledger, Promise};
use crate::power::load;

/// What is known of a topic. What was asked for and not answered is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicState {
    /// Creating it was acknowledged, or it was seen.
    Exists,
    /// Deleting it was acknowledged, or it was seen to be gone.
    Gone,
    /// The answer to creating or deleting it was cut off.
    Either,
}

/// See the module.
#[derive(Debug, Default)]
pub struct World {
    /// By name.
    pub topics: BTreeMap<String, TopicState>,
    /// Of all partitions, without an order.
    pub ledgers: Vec<Ledger>,
    /// Of the broker that runs, from 1 on.
    pub incarnation: u32,
    cluster_id: Option<String>,
    topic_ids: BTreeMap<String, String>,
    producer_ids: BTreeSet<i64>,
    next_number: u64,
    counted: BTreeMap<(String, i32), i64>,
}

impl World {
    /// A number nobody has, for a ledger or a name.
    pub fn next_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A new producer id was handed out.
    ///
    /// # Errors
    /// It was before.
    pub fn note_producer_id(&mut self, id: i64) -> Result<(), String> {
        match self.producer_ids.insert(id) {
            true => Ok(()),
            false => Err(format!("producer id {id} was handed out twice")),
        }
    }

    /// Acknowledged records since the last call.
    pub fn count_acknowledged(&mut self) -> u64 {
        let mut new = 0;
        for ledger in &self.ledgers {
            let key = (ledger.topic.clone(), ledger.partition);
            let before = self.counted.insert(key, ledger.acknowledged()).unwrap_or(0);
            new += (ledger.acknowledged() - before).max(0) as u64;
        }
        new
    }

    /// Compares with what a broker that just became ready knows. The acknowledged records that are gone, where they may be.
    ///
    /// # Errors
    /// The first difference that may not be.
    pub async fn check(
        &mut self,
        address: &str,
        promise: Promise,
        plant: Option<Plant>,
        random: &mut StdRng,
    ) -> Result<u64, String> {
        let connection = load::connect(address).await?;
        self.check_metadata(&connection).await?;
        let World { topics, ledgers, .. } = &mut *self;
        ledgers.retain(|ledger| topics[&ledger.topic] == TopicState::Exists);
        let mut found = load::read(address, &self.ledgers.iter().collect::<Vec<_>>()).await?;
        if let Some(plant) = plant {
            self.plant(plant, &mut found, random);
        }
        let mut lost = 0;
        for (ledger, found) in self.ledgers.iter_mut().zip(&found) {
            lost += ledger
                .check(found, promise)
                .map_err(|error| format!("{}-{}: {error}", ledger.topic, ledger.partition))?;
        }
        // From here on counted anew where some were lost.
        for ledger in &self.ledgers {
            let key = (ledger.topic.clone(), ledger.partition);
            self.counted.insert(key, ledger.acknowledged());
        }
        self.incarnation += 1;
        for ledger in &mut self.ledgers {
            ledger.begin(self.incarnation);
        }
        Ok(lost)
    }

    async fn check_metadata(&mut self, connection: &Connection) -> Result<(), String> {
        let request = MetadataRequest::default().with_topics(None);
        let answer = connection.call(&request).await.map_err(|error| error.to_string())?;
        let cluster_id = answer.cluster_id.map(|id| id.to_string());
        if self.cluster_id.is_some() && self.cluster_id != cluster_id {
            return Err(format!("cluster id {cluster_id:?} was {:?}", self.cluster_id));
        }
        self.cluster_id = cluster_id;
        let there: BTreeMap<String, String> = answer
            .topics
            .iter()
            .filter_map(|topic| {
                Some((topic.name.as_ref()?.to_string(), topic.topic_id.to_string()))
            })
            .collect();
        for (name, state) in &mut self.topics {
            match (there.get(name), &*state) {
                (None, TopicState::Exists) => {
                    return Err(format!("topic {name} is gone, and creating it was acknowledged"));
                }
                (Some(_), TopicState::Gone) => {
                    return Err(format!("topic {name} is back, and deleting it was acknowledged"));
                }
                (None, _) => *state = TopicState::Gone,
                (Some(id), _) => {
                    let before = self.topic_ids.insert(name.clone(), id.clone());
                    if before.as_ref().is_some_and(|before| before != id) {
                        return Err(format!("topic {name} has id {id}, and had {before:?}"));
                    }
                    *state = TopicState::Exists;
                }
            }
        }
        match there.keys().find(|name| !self.topics.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(format!("topic {name} was never created")),
        }
    }

    /// Takes a record out of what was read, where every record was acknowledged.
    fn plant(&self, plant: Plant, found: &mut [Found], random: &mut StdRng) {
        let whole: Vec<usize> = (0..found.len())
            .filter(|at| {
                let found = &found[*at];
                found.records.len() > 2 && found.end == self.ledgers[*at].acknowledged()
            })
            .collect();
        if whole.is_empty() {
            return;
        }
        let found = &mut found[whole[random.random_range(0..whole.len())]];
        match plant {
            Plant::LostTail => {
                found.records.pop();
                found.end -= 1;
            }
            Plant::LostInside => {
                found.records.remove(random.random_range(1..found.records.len() - 1));
            }
        }
    }
}
