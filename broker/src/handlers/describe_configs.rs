//! stub
use crate::api::dispatch::*;use crate::broker::Broker;use std::sync::Arc;
pub(crate) fn handle(_b: &Arc<Broker>, _r: Request) -> Result<Reply, Refused> { todo!() }
