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
    /// The next turn of each node and its number. A turn moves to an earlier time
    /// with nearly every input: in the heap each move would leave a dead event.
    turns: Vec<(u64, u64)>,
    /// The earliest of `turns`, and whose it is.
    first: (u64, u64, usize),
}

/// What the queue hands out.
pub(super) enum Next<E> {
    /// An event.
    Event(E),
    /// The turn of this node.
    Turn(usize),
}

const NEVER: (u64, u64) = (u64::MAX, u64::MAX);

impl<E> Queue<E> {
    /// An empty queue for a cluster of so many nodes.
    pub(super) fn new(nodes: usize) -> Queue<E> {
        Queue {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            turns: vec![NEVER; nodes],
            first: (NEVER.0, NEVER.1, 0),
        }
    }

    /// Plans a node's next turn, instead of a later one.
    pub(super) fn plan_turn(&mut self, node: usize, at: u64) {
        if at >= self.turns[node].0 {
            return;
        }
        self.sequence += 1;
        self.turns[node] = (at, self.sequence);
        if self.first.2 == node {
            self.find_first();
        } else {
            self.first = self.first.min((at, self.sequence, node));
        }
    }

    /// A node takes no turn.
    pub(super) fn cancel_turn(&mut self, node: usize) {
        self.turns[node] = NEVER;
        if self.first.2 == node {
            self.find_first();
        }
    }

    fn find_first(&mut self) {
        let turns = self.turns.iter().enumerate();
        let first = turns.map(|(node, (at, number))| (*at, *number, node)).min();
        self.first = first.unwrap_or((NEVER.0, NEVER.1, 0));
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

    /// What comes next, its time and its number.
    pub(super) fn pop(&mut self) -> Option<(u64, u64, Next<E>)> {
        let (at, number, node) = self.first;
        let event = self.heap.peek().map(|Reverse(event)| (event.0, event.1));
        if (at, number) < event.unwrap_or(NEVER) {
            self.cancel_turn(node);
            return Some((at, number, Next::Turn(node)));
        }
        let Reverse((at, number, place)) = self.heap.pop()?;
        let event = self.events[place as usize].take()?;
        self.free.push(place);
        Some((at, number, Next::Event(event)))
    }
}
