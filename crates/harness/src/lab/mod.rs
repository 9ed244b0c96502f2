//! The fault lab: real processes in several data centres, a workload, a timeline
//! of faults, and what must hold through it.

pub mod report;
