//! What will happen, by time; among equals, in the order it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of events in simulated time.
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// Events by their place; free places are reused.
    events: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Queue<E> {
        Queue {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }

    pub(super) fn push(&mut self, at: u64, event: E) {
        self.sequence += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.heap.push(Reverse((at, self.sequence, place)));
    }

    /// The next event, its time and its number.
    pub(super) fn pop(&mut self) -> Option<(u64, u64, E)> {
        let Reverse((at, number, place)) = self.heap.pop()?;
        let event = self.events[place as usize].take()?;
        self.free.push(place);
        Some((at, number, event))
    }
}
