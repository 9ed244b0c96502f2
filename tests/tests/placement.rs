//! Where replicas are, and what failures and policies would do, as operators ask.

use synod_tests::{cluster, synod, text};

#[test]
fn placement_is_shown_explained_and_tried_out() {
    let mut cluster = cluster(&["g", "p"]);
    let out = synod(&cluster, &["placement", "show", "--json"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).expect("one JSON object");
    let shards = shown["shards"].as_array().expect("shards");
    assert_eq!(shards.len(), 4);
    for shard in shards {
        assert_eq!(shard["answering"], 3);
        assert_eq!(shard["cannot_lose"].as_array().map(Vec::len), Some(0));
    }
    let places = shown["places"].as_array().expect("places");
    let dcs = places.iter().filter(|p| {
        let place = p["place"].as_str().unwrap_or_default();
        place
            .split(',')
            .next_back()
            .is_some_and(|t| t.starts_with("dc="))
    });
    let dcs: Vec<&str> = dcs.filter_map(|p| p["place"].as_str()).collect();
    assert_eq!(dcs.len(), 3, "{places:?}");
    assert!(places.iter().all(|p| p["stops"] == 0 || p["voters"] == 12));

    let out = synod(&cluster, &["placement", "explain", "2"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let told = text(&out);
    assert!(
        told.contains("the only voter in") && told.contains("goes on"),
        "{told}"
    );
    // People know nodes by their names, not by their ids.
    assert!(
        cluster.nodes().iter().all(|n| told.contains(&n.name)),
        "{told}"
    );

    let dc = |place: &str| {
        place
            .rsplit(',')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let one = dc(dcs[0]);
    let out = synod(&cluster, &["placement", "what-if", "--lose", &one], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let two = format!("{} | {}", dc(dcs[0]), dc(dcs[1]));
    let out = synod(&cluster, &["placement", "what-if", "--lose", &two], "");
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(
        text(&out).contains("4 of 4 shards lose their quorum"),
        "{}",
        text(&out)
    );

    // What is asked for is there; two more voters have no place.
    let out = synod(
        &cluster,
        &["placement", "plan", "--policy", "voters = 3, survive = dc"],
        "",
    );
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let out = synod(
        &cluster,
        &["placement", "plan", "--policy", "voters = 5"],
        "",
    );
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(text(&out).contains("problem: "), "{}", text(&out));

    // With one node gone the loss of any other stops everything.
    cluster.node_mut(2).kill();
    let args = ["placement", "show", "--json", "--timeout-millis", "300"];
    let out = synod(&cluster, &args, "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).expect("one JSON object");
    for shard in shown["shards"].as_array().expect("shards") {
        assert_eq!(shard["answering"], 2);
        assert_ne!(
            shard["cannot_lose"].as_array().map(Vec::len),
            Some(0),
            "{shard}"
        );
    }
}

#[test]
fn wrong_questions_about_placement_say_what_would_be_right() {
    let cluster = cluster(&[]);
    for (args, said) in [
        (&["explain", "77"][..], "there are"),
        (&["what-if", "--lose", "dc=nowhere"], "is in"),
        (&["what-if", "--lose", "dc="], "--lose"),
        (&["plan", "--policy", "votes = 3"], "voters"),
        (&["plan", "--policy", "voters = 4"], "odd"),
        (
            &["plan", "--policy-of", "acc/", "voters = x"],
            "--policy-of acc/",
        ),
    ] {
        let all = [&["placement"][..], args].concat();
        let out = synod(&cluster, &all, "");
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", text(&out));
        assert!(text(&out).contains(said), "{args:?}: {}", text(&out));
    }
}
