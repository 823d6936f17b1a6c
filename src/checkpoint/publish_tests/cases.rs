//! What there may be before a save.

use super::*;

pub fn cases() -> Vec<Case> {
    let base = Case {
        new: 2,
        ..Case::default()
    };
    let over = Case {
        old: 2,
        state: Some("m"),
        writes_state: true,
        ..base.clone()
    };
    vec![
        Case {
            name: "first save",
            writes_state: true,
            ..base.clone()
        },
        Case {
            name: "first save over stale shards, with a state of its own",
            stale: 2,
            state: Some("other"),
            writes_state: true,
            ..base.clone()
        },
        Case {
            name: "overwrite",
            ..over.clone()
        },
        Case {
            name: "overwrite, state not written",
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "overwrite, state names something else and is not written",
            state: Some("other"),
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "overwrite, no state",
            state: None,
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "overwrite, first state",
            state: None,
            ..over.clone()
        },
        Case {
            name: "more shards",
            old: 1,
            ..over.clone()
        },
        Case {
            name: "fewer shards, stale ones in the way",
            old: 2,
            stale: 1,
            new: 1,
            ..over.clone()
        },
        Case {
            name: "no links",
            refuse_links: true,
            ..over.clone()
        },
        Case {
            name: "no links, state not written, one shard more and a stale one",
            old: 1,
            stale: 2,
            writes_state: false,
            refuse_links: true,
            ..over.clone()
        },
        Case {
            name: "damaged",
            damaged: true,
            ..over.clone()
        },
        Case {
            name: "incomplete",
            incomplete: true,
            ..over.clone()
        },
        Case {
            name: "left-over .prev that the state names",
            left_over: true,
            state: Some(LEFT_OVER),
            ..over.clone()
        },
        Case {
            name: "left-over .prev that the state names and that is not written",
            left_over: true,
            state: Some(LEFT_OVER),
            writes_state: false,
            ..over.clone()
        },
        Case {
            name: "first save with a sidecar, over a stale one",
            sidecar: Some(7),
            new_sidecar: true,
            writes_state: true,
            ..base
        },
        Case {
            name: "overwrite with a sidecar, one there",
            sidecar: Some(1),
            new_sidecar: true,
            ..over.clone()
        },
        Case {
            name: "overwrite with a sidecar, none there",
            new_sidecar: true,
            ..over.clone()
        },
        Case {
            name: "overwrite without a sidecar, one there",
            sidecar: Some(1),
            ..over.clone()
        },
        Case {
            name: "overwrite without a sidecar, a stale one there, no links",
            sidecar: Some(0),
            refuse_links: true,
            ..over.clone()
        },
        Case {
            name: "torn by a crash",
            torn: true,
            state: Some(LEFT_OVER),
            ..over.clone()
        },
        Case {
            name: "torn by a crash, no links",
            torn: true,
            refuse_links: true,
            state: Some(LEFT_OVER),
            ..over
        },
    ]
}
