//! The in-sync replicas as their leader sees them: the committed set and at most one change under way
//! (KIP-497).

use crate::identity::BrokerId;

/// A change that the leader has proposed and whose outcome it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    /// This replica joins.
    Expand(BrokerId),
    /// These stay.
    Shrink(Vec<BrokerId>),
}

/// The ISR of one partition, in the leader's eyes.
///
/// The *committed* set is the metadata's, never an answer's: so the set and the min ISR that it is held
/// against always come from one image (see [`super::leader`]). The *maximal* set is what the ISR may be by
/// now: while a replica joins, with it; while some leave, still with them. Whoever counts too early only
/// delays the high watermark; counting too late would show records that an ISR member may lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isr {
    /// In order, distinct; the leader is one.
    committed: Vec<BrokerId>,
    pending: Option<Pending>,
}

impl Isr {
    /// The ISR that the metadata names.
    pub fn new(mut committed: Vec<BrokerId>) -> Isr {
        committed.sort_unstable();
        committed.dedup();
        Isr { committed, pending: None }
    }

    /// The committed members, in order of their ids.
    pub fn committed(&self) -> &[BrokerId] {
        &self.committed
    }

    /// The members that the ISR has or may have.
    pub fn maximal(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let joining = match self.pending {
            Some(Pending::Expand(id)) => Some(id),
            Some(Pending::Shrink(_)) | None => None,
        };
        self.committed.iter().copied().chain(joining)
    }

    /// Size of the maximal set.
    pub fn maximal_size(&self) -> usize {
        self.maximal().count()
    }

    /// Whether a change is under way: then no other may be proposed.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The members of the change under way, in order of their ids.
    pub fn proposed(&self) -> Option<Vec<BrokerId>> {
        match self.pending.as_ref()? {
            Pending::Expand(_) => {
                let mut members: Vec<BrokerId> = self.maximal().collect();
                members.sort_unstable();
                Some(members)
            }
            Pending::Shrink(stay) => Some(stay.clone()),
        }
    }

    /// Begins to take `joining` in.
    ///
    /// # Panics
    /// If a change is under way or it is a member: our bug.
    pub fn propose_expand(&mut self, joining: BrokerId) {
        assert!(self.pending.is_none(), "one ISR change at a time: {self:?}, joining {joining}");
        assert!(!self.committed.contains(&joining), "{joining} is in {self:?} already");
        self.pending = Some(Pending::Expand(joining));
    }

    /// Begins to put `leaving` out.
    ///
    /// # Panics
    /// If a change is under way: our bug.
    pub fn propose_shrink(&mut self, leaving: &[BrokerId]) {
        assert!(self.pending.is_none(), "one ISR change at a time: {self:?}, leaving {leaving:?}");
        let stay = self.committed.iter().copied().filter(|id| !leaving.contains(id)).collect();
        self.pending = Some(Pending::Shrink(stay));
    }

    /// The controller refused the change: it is certain that it never happens.
    pub fn roll_back(&mut self) {
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: i32) -> BrokerId {
        BrokerId::new(id).unwrap()
    }

    #[test]
    fn a_joining_replica_counts_at_once_and_a_leaving_one_still() {
        let mut isr = Isr::new(vec![id(2), id(1)]);
        isr.propose_expand(id(3));
        assert_eq!(isr.maximal().collect::<Vec<_>>(), [id(1), id(2), id(3)]);
        assert_eq!(isr.committed(), [id(1), id(2)]);
        assert_eq!(isr.proposed(), Some(vec![id(1), id(2), id(3)]));
        isr.roll_back();
        isr.propose_shrink(&[id(2)]);
        assert_eq!(isr.maximal_size(), 2);
        assert_eq!(isr.proposed(), Some(vec![id(1)]));
    }

    #[test]
    #[should_panic(expected = "one ISR change at a time")]
    fn a_second_change_does_not_begin_before_the_first_is_over() {
        let mut isr = Isr::new(vec![id(1)]);
        isr.propose_expand(id(2));
        isr.propose_shrink(&[]);
    }
}
