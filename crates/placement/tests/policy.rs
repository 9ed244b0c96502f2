//! Policies as text.

use proptest::prelude::*;
use std::collections::BTreeMap;
use synod_placement::{
    Expr, Locality, MAX_POLICY_BYTES, Policies, Policy, Rules, RulesError, Sharding,
};

fn policy(text: &str) -> Policy {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<Policy>().expect_err(text).to_string()
}

const FULL: &str = "voters = 5, witnesses = 1, learners = {dc=eu-west: 1}, \
    spread = [region, dc, rack], require = disk=ssd & !cordoned, \
    forbid = region=us | tier=cold, leaders = [dc=eu-central, region=eu], survive = dc";

#[test]
fn a_policy_reads_as_it_is_written() {
    for text in [
        FULL,
        "",
        "learners = {}, spread = [], leaders = []",
        "require = any, forbid = none",
        "sharding = hash(64)",
        "survive = rack, sharding = plain",
    ] {
        assert_eq!(policy(text).to_string(), text);
    }
}

#[test]
fn line_breaks_comments_and_a_last_comma_are_allowed() {
    let text = "# for money\nvoters=5 , # five\n\twitnesses=1,\nlearners={dc=eu-west:1,},\n\
        spread=[region,dc,rack,],require=disk=ssd&!cordoned,forbid=region=us|tier=cold,\n\
        leaders=[dc=eu-central,region=eu],survive=dc,\n";
    assert_eq!(policy(text), policy(FULL));
}

#[test]
fn errors_name_the_place_and_the_nearest_word() {
    for (text, expected) in [
        (
            "voter = 3",
            "line 1, column 1: there is no setting `voter`; did you mean `voters`?",
        ),
        (
            "voters = 3,\n  leadres = []",
            "line 2, column 3: there is no setting `leadres`; did you mean `leaders`?",
        ),
        (
            "zzzzzzzzzzzz = 3",
            "line 1, column 1: there is no setting `zzzzzzzzzzzz`; the settings are voters, witnesses",
        ),
        (
            "sharding = hashed",
            "line 1, column 12: expected `plain`, or `hash(64)`, found `hashed`",
        ),
        (
            "sharding = hash(64",
            "line 1, column 19: expected `)`, found the end",
        ),
        ("voters 3", "line 1, column 8: expected `=`, found `3`"),
        (
            "voters = 16",
            "line 1, column 10: expected a number from 1 to 15, found `16`",
        ),
        (
            "voters = five",
            "line 1, column 10: expected a number from 1 to 15, found `five`",
        ),
        (
            "voters =",
            "line 1, column 9: expected a number from 1 to 15, found the end",
        ),
        (
            "voters = 3 witnesses = 1",
            "line 1, column 12: expected `,` and the next setting, or the end, found `witnesses`",
        ),
        (
            "voters = 3, voters = 5",
            "line 1, column 13: `voters` is given twice",
        ),
        ("spread = dc", "line 1, column 10: expected `[`, found `dc`"),
        (
            "spread = [dc, dc]",
            "line 1, column 15: `dc` is given twice",
        ),
        (
            "spread = [dc rack]",
            "line 1, column 14: expected `,` or `]`, found `rack`",
        ),
        (
            "learners = {dc=a}",
            "line 1, column 17: expected `:` and how many learners, found `}`",
        ),
        (
            "learners = {dc=a: 0}",
            "line 1, column 19: expected a number from 1 to 15, found `0`",
        ),
        (
            "require = dc=",
            "line 1, column 14: expected a value, found the end",
        ),
        (
            "require = (a & b",
            "line 1, column 17: expected `)`, found the end",
        ),
        ("require = ", "line 1, column 11: expected a tier or label"),
        ("require = é$", "line 1, column 12: unexpected '$'"),
        (
            "survive = [dc]",
            "line 1, column 11: expected a tier, such as `dc`, or `none`, found `[`",
        ),
        (
            ", voters = 3",
            "line 1, column 1: expected a setting, found `,`",
        ),
    ] {
        let found = error(text);
        assert!(
            found.starts_with(expected),
            "{text:?}\n  {found}\n  {expected}"
        );
    }
    assert!(error(&format!("require = {}a", "!".repeat(40))).contains("nested too deeply"));
    assert!(error(&format!("require = {}a", "(".repeat(40))).contains("nested too deeply"));
    assert!(error(&" ".repeat(MAX_POLICY_BYTES + 1)).contains("has 4097 bytes"));
    let many: Vec<String> = (0..17).map(|n| format!("t{n}")).collect();
    assert!(error(&format!("spread = [{}]", many.join(","))).contains("at most 16 items"));
}

#[test]
fn expressions_are_about_tiers_and_labels() {
    let place: Locality = "region=eu,dc=eu-1".parse().expect("a locality");
    let labels = [("disk", "ssd"), ("fast", ""), ("dc", "hidden")];
    let labels: BTreeMap<String, String> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let matches = |text: &str| {
        let expr: Expr = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        expr.matches(&place, &labels)
    };
    for text in [
        "any",
        "dc=eu-1",
        "!none",
        "disk=ssd & fast",
        "dc=eu-2 | region=eu",
        "slow!=yes",
        "a & b | fast",
        "!(fast & slow)",
        "dc!=hidden",
        "region",
    ] {
        assert!(matches(text), "{text}");
    }
    for text in [
        "none",
        "dc=hidden",
        "fast=yes",
        "rack",
        "fast & (slow | none)",
        "!region=eu",
    ] {
        assert!(!matches(text), "{text}");
    }
}

#[test]
fn directories_inherit_from_those_around_them() {
    let policies = Policies {
        default: policy("voters = 5, survive = dc, leaders = [dc=a]"),
        directories: BTreeMap::from([
            (
                b"bank/".to_vec(),
                policy("witnesses = 1, require = disk=ssd"),
            ),
            (
                b"bank/archive/".to_vec(),
                policy("voters = 3, survive = none, leaders = []"),
            ),
            (b"bank/x".to_vec(), Policy::default()),
        ]),
    };
    let of = |key: &str| policies.directory_of(key.as_bytes());
    assert_eq!(of("ban"), None);
    assert_eq!(of("bank/z"), Some(b"bank/".as_slice()));
    assert_eq!(of("bank/archive/1"), Some(b"bank/archive/".as_slice()));
    assert_eq!(of("bank/archive"), Some(b"bank/".as_slice()));
    let rules = |key: &str| policies.rules(of(key)).expect("consistent");
    assert_eq!(rules("a").voters, 5);
    assert_eq!(rules("bank/z").witnesses, 1);
    let archive = rules("bank/archive/1");
    assert_eq!((archive.voters, archive.witnesses), (3, 1));
    assert_eq!((archive.survive, archive.leaders.len()), (None, 0));
    assert_eq!(archive.require.to_string(), "disk=ssd");
    assert_eq!(Policies::default().rules(None), Ok(Rules::default()));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused = |text: &str| {
        let default = policy(text);
        let policies = Policies {
            default,
            ..Policies::default()
        };
        policies.rules(None).expect_err(text)
    };
    assert_eq!(refused("voters = 4"), RulesError::EvenVoters { voters: 4 });
    assert_eq!(
        refused("voters = 5, witnesses = 3").to_string(),
        "witnesses = 3 leaves 2 of 5 voters with data, and a majority of 3 must have it; \
         at most 2 can be witnesses"
    );
    assert!(
        refused("voters = 1, witnesses = 15")
            .to_string()
            .contains("leaves 0 of 1")
    );
}

fn any_expr() -> impl Strategy<Value = Expr> {
    let word = "[a-zä_.-][a-z0-9_.-]{0,5}";
    let name = word.prop_filter("a constant", |w| w != "any" && w != "none");
    let leaf = prop_oneof![
        Just(Expr::Any),
        Just(Expr::None),
        name.prop_map(Expr::Has),
        (word, word).prop_map(|(name, value)| Expr::Is(name, value)),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|e| Expr::Not(Box::new(e))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner, 2..4).prop_map(Expr::Or),
        ]
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    use prop::collection::{btree_map, btree_set, vec};
    use prop::option::of;
    let numbers = (of(1..16_usize), of(0..16_usize));
    let learners = of(btree_map(any_expr(), 1..16_usize, 0..3));
    let tiers = of(btree_set("[a-z0-9]{1,4}", 0..4));
    let exprs = (of(any_expr()), of(any_expr()));
    let leaders = of(vec(any_expr(), 0..3)).prop_map(|all| {
        all.map(|mut all| {
            all.sort();
            all.dedup();
            all
        })
    });
    let slots = of(1..=u16::MAX).prop_map(|n| n.map_or(Sharding::Plain, Sharding::Hash));
    let others = (of("[a-z]{1,6}"), of(slots));
    (numbers, learners, tiers, exprs, leaders, others).prop_map(
        |(
            (voters, witnesses),
            learners,
            tiers,
            (require, forbid),
            leaders,
            (survive, sharding),
        )| Policy {
            voters,
            witnesses,
            learners: learners.map(|all| all.into_iter().collect()),
            spread: tiers.map(|all| all.into_iter().collect()),
            require,
            forbid,
            leaders,
            survive,
            sharding,
        },
    )
}

proptest! {
    #[test]
    fn policies_round_trip(policy in any_policy()) {
        let text = policy.to_string();
        prop_assume!(text.len() <= MAX_POLICY_BYTES);
        prop_assert_eq!(text.parse::<Policy>(), Ok(policy), "{}", text);
    }

    #[test]
    fn any_text_is_a_policy_or_an_error_within_it(
        text in "((voters|spread|leaders|require|learners|survive|dc|a|5|=|!=|,|:|!|&|\\||[(){}\\[\\]]|#|\n|é) ?){0,24}",
    ) {
        match text.parse::<Policy>() {
            Ok(policy) => prop_assert_eq!(policy.to_string().parse(), Ok(policy)),
            Err(error) => {
                let lines: Vec<&str> = text.split('\n').collect();
                let line = lines.get(error.line - 1);
                prop_assert!(line.is_some_and(|l| error.column <= l.chars().count() + 1), "{}", error);
            }
        }
    }
}
