//! The catalogue. Times are those of the list, shortened where only their being
//! longer than every timer matters.

use super::{Scenario, Stage};
use crate::sim::config::SECOND;
use crate::sim::fault::{Down, Fault};

/// Every scenario.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "overheating",
        about: "A site's machines go off one after the other within two minutes, and come back \
                after a long while.",
        failovers: 2,
        make: overheating,
    },
    Scenario {
        name: "power-unit-loss",
        about: "A power distribution unit fails: half of a site's machines lose power in the same \
                moment.",
        failovers: 2,
        make: power_unit_loss,
    },
    Scenario {
        name: "rack-move",
        about: "A rack is drained in an orderly way, moved, and started again after a long while.",
        failovers: 2,
        make: rack_move,
    },
    Scenario {
        name: "rewiring",
        about: "The network is rewired: one machine in twenty is cut off, one batch after the \
                other.",
        failovers: 2,
        make: rewiring,
    },
    Scenario {
        name: "rack-loss",
        about: "All machines of a rack are gone at once, for long.",
        failovers: 2,
        make: rack_loss,
    },
    Scenario {
        name: "rack-instability",
        about: "The links of a rack lose every second message.",
        failovers: 4,
        make: rack_instability,
    },
    Scenario {
        name: "router-restart",
        about: "A site's router restarts again and again: each time the site is cut off for a \
                moment.",
        failovers: 2,
        make: router_restart,
    },
    Scenario {
        name: "router-loss",
        about: "A site's router is gone: the site is cut off for long, and its machines go on by \
                themselves.",
        failovers: 2,
        make: router_loss,
    },
    Scenario {
        name: "name-service-flaps",
        about: "Names resolve now and then: connections of random machines end again and again, \
                and links go dark for moments.",
        failovers: 2,
        make: name_service_flaps,
    },
    Scenario {
        name: "machine-loss",
        about: "A machine is gone for good, with all its files.",
        failovers: 2,
        make: machine_loss,
    },
    Scenario {
        name: "disk-loss",
        about: "Disks die: one machine loses all its files, another the disk of its engine, a \
                third's log fails and stalls.",
        failovers: 2,
        make: disk_loss,
    },
];

fn overheating(stage: &mut Stage) {
    let length = stage.long(150, 260);
    for node in stage.site() {
        let after = stage.millis(0, 120_000).min(length / 2);
        let down = length - after - stage.millis(0, 10_000);
        let how = Down::Power;
        stage.fault(after, Fault::Crash { node, how, down });
    }
}

fn power_unit_loss(stage: &mut Stage) {
    let length = stage.long(15, 40);
    let mut nodes = stage.site();
    let half = nodes.len().div_ceil(2);
    while nodes.len() > half {
        let one = stage.random.range(0, nodes.len() as u64) as usize;
        nodes.remove(one);
    }
    let fault = Fault::CrashMany {
        nodes,
        how: Down::Power,
        down: length - 4 * SECOND,
    };
    stage.fault(0, fault);
}

fn rack_move(stage: &mut Stage) {
    let length = stage.long(60, 120);
    for node in stage.rack() {
        let after = stage.millis(0, 2_000);
        let down = length - after - 5 * SECOND;
        stage.fault(after, Fault::Stop { node, down });
    }
}

fn rewiring(stage: &mut Stage) {
    let batches = stage.random.range(2, 5);
    let each = stage.millis(8_000, 20_000);
    let count = stage.config.nodes().div_ceil(20);
    for batch in 0..batches {
        let nodes = (0..count).map(|_| stage.node()).collect();
        stage.cut_off(batch * (each + SECOND), nodes, each);
    }
    let seconds = batches * (each / SECOND + 2);
    stage.long(seconds, seconds + 1);
}

fn rack_loss(stage: &mut Stage) {
    let length = stage.long(40, 80);
    let fault = Fault::CrashMany {
        nodes: stage.rack(),
        how: Down::Power,
        down: length - 5 * SECOND,
    };
    stage.fault(0, fault);
}

fn rack_instability(stage: &mut Stage) {
    let lasts = stage.long(20, 50);
    let fault = Fault::BadLinks {
        nodes: stage.rack(),
        loss: 500,
        extra: stage.millis(0, 10),
        lasts,
    };
    stage.fault(0, fault);
}

fn router_restart(stage: &mut Stage) {
    let times = stage.random.range(2, 5);
    let site = stage.site();
    let mut after = 0;
    for _ in 0..times {
        let lasts = stage.millis(300, 3_000);
        stage.cut_off(after, site.clone(), lasts);
        for node in &site {
            stage.fault(after, Fault::Reset { node: *node });
        }
        after += lasts + stage.millis(3_000, 10_000);
    }
    stage.long(after / SECOND + 1, after / SECOND + 2);
}

fn router_loss(stage: &mut Stage) {
    let lasts = stage.long(40, 90);
    let site = stage.site();
    stage.cut_off(0, site, lasts);
}

fn name_service_flaps(stage: &mut Stage) {
    let length = stage.long(20, 40);
    let mut after = 0;
    while after < length {
        let node = stage.node();
        if stage.random.chance(700) {
            stage.fault(after, Fault::Reset { node });
        } else {
            let lasts = stage.millis(20, 500);
            stage.cut_off(after, vec![node], lasts);
        }
        after += stage.millis(50, 1_000);
    }
}

fn machine_loss(stage: &mut Stage) {
    stage.long(20, 40);
    let node = stage.node();
    stage.fault(0, Fault::Wipe { node });
}

fn disk_loss(stage: &mut Stage) {
    // One voter is gone for good while another's disk stalls: three would be too few.
    stage.config.replicas = 5;
    let length = stage.long(40, 60);
    let first = stage.random.range(0, stage.config.nodes() as u64) as usize;
    let nodes = stage.config.nodes();
    let (second, third) = ((first + 1) % nodes, (first + 2) % nodes);
    stage.fault(0, Fault::Wipe { node: first });
    let down = stage.millis(500, 5_000);
    stage.fault(length / 4, Fault::LoseEngine { node: second, down });
    let lasts = stage.millis(2_000, 6_000);
    stage.fault(length / 2, Fault::DiskStall { node: third, lasts });
    let calls = stage.random.range(0, 60);
    stage.fault(length * 3 / 4, Fault::DiskFails { node: third, calls });
}
