//! A value is cut between characters, never inside one.

use agent_core::limits::{head, truncate};
use proptest::prelude::*;

#[test]
fn the_limit_counts_characters() {
    assert_eq!(truncate("héllo", 2), "hé");
    assert_eq!(truncate("héllo", 5), "héllo");
    assert_eq!(truncate("日本語", 3), "日本語");
    assert_eq!(truncate("日本語", 1), "日");
    assert_eq!(truncate("abc", 0), "");
}

#[test]
fn the_head_counts_bytes() {
    assert_eq!(head("héllo", 2), "h");
    assert_eq!(head("héllo", 3), "hé");
    assert_eq!(head("日", 2), "");
    assert_eq!(head("abc", 9), "abc");
}

proptest! {
    #[test]
    fn any_text_is_cut_at_a_character(text: String, limit in 0_usize..40) {
        let cut = truncate(&text, limit);
        prop_assert!(text.starts_with(cut));
        prop_assert_eq!(cut.chars().count(), text.chars().count().min(limit));
        let cut = head(&text, limit);
        prop_assert!(text.starts_with(cut) && cut.len() <= limit && text.len().min(limit) - cut.len() < 4);
    }
}
