//! That things stand where they should.

use super::super::example::{bucket, empty, extreme, fault, ordinary, site};
use super::super::tests::is_well_formed;
use super::panels::{Area, rate_scale};
use super::scale::{Scale, linear_ticks, log_ends, log_ticks, time_ticks};
use super::svg::{areas, place, steps};
use super::{Shape, columns, draw};

#[test]
fn both_shapes_are_whole_and_the_same_each_time() {
    for report in [empty(), ordinary(), extreme()] {
        for shape in [Shape::Wide, Shape::Narrow] {
            let svg = draw(&report, shape);
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert_eq!(is_well_formed(&svg), Ok(()));
            assert_eq!(svg, draw(&report, shape));
        }
    }
}

#[test]
fn equal_factors_are_equally_far_apart() {
    let scale = Scale::log(1.0, 100.0, 0.0, 10.0);
    assert!((scale.at(10.0) - 5.0).abs() < 1e-9);
    assert_eq!(
        (scale.at(0.0), scale.at(1e9), scale.at(f64::NAN)),
        (0.0, 10.0, 0.0)
    );
}

#[test]
fn a_peak_stands_where_its_value_is() {
    // 1,000 and at its peak 2,000 per second, in a panel from 200 up to 100.
    let buckets = vec![bucket(250, 0, 0, 1, 2), bucket(500, 0, 0, 1, 2)];
    let site = site("here", 250, buckets);
    let columns = columns::columns(&site, 500, 600);
    let area = Area {
        top: 100.0,
        bottom: 200.0,
    };
    let scale = rate_scale(&columns, area);
    let from_floor = |rate| 200.0 - scale.at(rate);
    assert!((from_floor(2_000.0) - 100.0 / 1.05).abs() < 1e-9);
    assert!((from_floor(1_000.0) * 2.0 - from_floor(2_000.0)).abs() < 1e-9);
    assert_eq!(scale.at(0.0), 200.0);

    // And so it does in the picture: the second half of the outline.
    let mut report = empty();
    report.run_millis = 500;
    report.sites = vec![site];
    let svg = draw(&report, Shape::Wide);
    let curve = svg
        .lines()
        .find(|line| line.contains("class=\"ok curve\""))
        .expect("a curve");
    let (left, right) = (
        Shape::Wide.left(),
        Shape::Wide.width() - Shape::Wide.right(),
    );
    let middle = f64::midpoint(left, right);
    // A panel of 88 units; its floor is where the axis is.
    let floor = 4.0 + 14.0 + 24.0 + 20.0 + 88.0;
    let (low, high) = (floor - 44.0 / 1.05, floor - 88.0 / 1.05);
    let [low, high, left, middle, right] = [low, high, left, middle, right].map(place);
    let wanted = format!("M{left},{low}H{middle}V{high}H{right}");
    assert!(curve.contains(&wanted), "{curve} instead of {wanted}");
}

#[test]
fn bands_lie_where_the_faults_are() {
    let mut report = ordinary();
    report.faults = vec![fault(5_000, Some(10_000), "cut off", &["virginia"])];
    let svg = draw(&report, Shape::Wide);
    let width = Shape::Wide.width() - Shape::Wide.left() - Shape::Wide.right();
    let (x, width) = (place(Shape::Wide.left() + width / 5.0), place(width / 5.0));
    let bands = svg.lines().filter(|line| line.contains("class=\"band"));
    let bands: Vec<&str> = bands.collect();
    assert_eq!(bands.len(), 3);
    assert!(
        bands
            .iter()
            .all(|band| band.contains(&format!("x=\"{x}\"")))
    );
    assert!(
        bands
            .iter()
            .all(|band| band.contains(&format!("width=\"{width}\"")))
    );
    let full = bands.iter().filter(|band| band.contains("class=\"band\""));
    assert_eq!(full.count(), 1);
}

#[test]
fn among_many_faults_a_site_shows_its_own() {
    let svg = draw(&extreme(), Shape::Wide);
    assert!(svg.contains("class=\"band\"") && !svg.contains("class=\"band off\""));
    assert!(draw(&ordinary(), Shape::Wide).contains("class=\"band off\""));
}

#[test]
fn axes_name_round_values() {
    assert_eq!(linear_ticks(2_100.0, 3), [0.0, 1_000.0, 2_000.0]);
    assert_eq!(linear_ticks(0.0, 3), [0.0]);
    assert_eq!(linear_ticks(0.5, 2), [0.0, 0.2, 0.4]);
    assert_eq!(linear_ticks(1e300, 2).len(), 2);
    assert_eq!(log_ends(6_200.0, 640_000.0), (5_000.0, 1_000_000.0));
    assert_eq!(log_ends(0.0, 0.0), (1.0, 5.0));
    assert_eq!(log_ticks(1_000.0, 5_000.0, 4), [1_000.0, 2_000.0, 5_000.0]);
    assert_eq!(log_ticks(1_000.0, 1e6, 4), [1e3, 1e4, 1e5, 1e6]);
    assert_eq!(log_ticks(1_000.0, 1e6, 2), [1e3, 1e5]);
    assert_eq!(time_ticks(25_000.0, 5), [0.0, 5e3, 10e3, 15e3, 20e3, 25e3]);
    assert_eq!(time_ticks(100_000.0, 4), [0.0, 30e3, 60e3, 90e3]);
    assert!(time_ticks(u64::MAX as f64, 6).len() <= 7);
}

#[test]
fn an_outline_is_broken_where_nothing_is() {
    let whole = [(0.0, 1.0, 5.0), (1.0, 2.0, 5.0), (2.0, 3.0, 7.0)];
    assert_eq!(steps(&whole), "M0,5H2V7H3");
    let broken = [(0.0, 1.0, 5.0), (2.0, 3.0, 7.0)];
    assert_eq!(steps(&broken), "M0,5H1M2,7H3");
    let area = [(0.0, 1.0, 5.0, 9.0), (2.0, 3.0, 7.0, 9.0)];
    assert_eq!(areas(&area), "M0,5H1L1,9H0ZM2,7H3L3,9H2Z");
    assert_eq!(areas(&[]), "");
}
