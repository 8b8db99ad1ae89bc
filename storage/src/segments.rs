//! The segments of one log, in the order of their offsets. Pure: which one, not what is in it.

use crate::offset::Offset;
use crate::segment::Segment;

/// Segments by base offset; the last one is the one that is appended to.
///
/// Invariant: base offsets strictly increase, and no segment reaches past the base of the next one. There
/// may be none: a log whose first append is still to come.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    segments: Vec<Segment>,
}

impl Segments {
    pub(crate) fn new() -> Segments {
        Segments::default()
    }

    /// Adds the new last segment.
    ///
    /// # Panics
    /// If it does not start where the last one ends, or later.
    pub(crate) fn push(&mut self, segment: Segment) {
        if let Some(last) = self.segments.last() {
            assert!(
                last.base_offset() < segment.base_offset()
                    && last.next_offset() <= segment.base_offset(),
                "segment {} after [{}, {})",
                segment.base_offset(),
                last.base_offset(),
                last.next_offset()
            );
        }
        self.segments.push(segment);
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Segment> {
        self.segments.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Segment> {
        self.segments.iter_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn first(&self) -> Option<&Segment> {
        self.segments.first()
    }

    pub(crate) fn last(&self) -> Option<&Segment> {
        self.segments.last()
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut Segment> {
        self.segments.last_mut()
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Segment> {
        self.segments.get_mut(at)
    }

    pub(crate) fn pop(&mut self) -> Option<Segment> {
        self.segments.pop()
    }

    pub(crate) fn remove_first(&mut self) -> Segment {
        self.segments.remove(0)
    }

    /// Bytes in all of them.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.size_bytes())).sum()
    }

    /// Number of the segment to read `offset` from: the one that holds it, or the first one after the gap
    /// it is in. `None` at and past the end.
    pub(crate) fn holding(&self, offset: Offset) -> Option<usize> {
        let at = self.segments.partition_point(|segment| segment.next_offset() <= offset);
        // Empty segments hold nothing.
        (at..self.segments.len()).find(|at| self.segments[*at].size_bytes() > 0)
    }
}

#[cfg(test)]
impl std::ops::Index<usize> for Segments {
    type Output = Segment;

    fn index(&self, at: usize) -> &Segment {
        &self.segments[at]
    }
}
