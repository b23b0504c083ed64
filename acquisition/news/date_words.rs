//! Dates in Hungarian, Greek, Korean, German and French, turned into forms that `date.rs` reads.

/// `2004-július-13T9:15-05:00`, `2004년 05월 28일 01:31:15`, `2004-05-25 오후 11:23:17`, lower-case, as W3CDTF.
pub(super) fn in_numbers(text: &str) -> Option<String> {
    if let Some(month) = HUNGARIAN_MONTHS.iter().position(|month| text.contains(month)) {
        let number = format!("{:02}", month + 1);
        return Some(text.replace("februári", "február").replace(HUNGARIAN_MONTHS[month], &number));
    }
    if let Some((date, time)) = text.split_once('일') {
        return Some(format!("{}t{}+09:00", date.replace("년 ", "-").replace("월 ", "-"), time.trim()));
    }
    let is_afternoon = text.contains("오후");
    let (date, time) = text.split_once("오후").or_else(|| text.split_once("오전"))?;
    let (hour, rest) = time.trim().split_once(':')?;
    let hour = hour.parse::<u32>().ok()?;
    // 12 at noon and at midnight: the clock has no 0.
    let hour = hour % 12 + if is_afternoon { 12 } else { 0 };
    Some(format!("{}t{hour:02}:{rest}+09:00", date.trim()))
}

/// `Κυρ, 11 Ιούλ 2004 12:00:00 EST` with the month in English, without the day's name.
pub(super) fn in_english(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(',')?;
    let word = rest.split_whitespace().nth(1)?;
    let (_, english) = GREEK_MONTHS.iter().find(|(greek, _)| word.starts_with(greek))?;
    Some(rest.replacen(word, english, 1))
}

/// `Do, 01 Mai 2004 10:00:00 +0100` and `5 févr. 2004`, lower-case, with the month in English, without the day's name.
pub(super) fn with_english_month(text: &str) -> Option<String> {
    let mut words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let is_day = words.first()?.chars().all(|letter| letter.is_alphabetic() || letter == '.');
    words.drain(..usize::from(is_day));
    let known = |word: &str| MONTHS.iter().find(|(month, _)| word.starts_with(month)).map(|(_, english)| *english);
    if !is_day && !words.iter().any(|word| known(word).is_some()) {
        return None;
    }
    Some(words.iter().map(|word| known(word).unwrap_or(word)).collect::<Vec<_>>().join(" "))
}

/// How German and French months begin that do not begin as the English ones do.
const MONTHS: &[(&str, &str)] = &[
    ("jän", "jan"),
    ("fév", "feb"),
    ("mär", "mar"),
    ("mrz", "mar"),
    ("maerz", "mar"),
    ("avr", "apr"),
    ("mai", "may"),
    ("juin", "jun"),
    ("juil", "jul"),
    ("aoû", "aug"),
    ("aou", "aug"),
    ("okt", "oct"),
    ("dez", "dec"),
    ("déc", "dec"),
];

const HUNGARIAN_MONTHS: [&str; 12] = [
    "január",
    "február",
    "március",
    "április",
    "május",
    "június",
    "július",
    "augusztus",
    "szeptember",
    "október",
    "november",
    "december",
];

/// Three letters, with and without the accent; June and July need a fourth.
const GREEK_MONTHS: &[(&str, &str)] = &[
    ("Ιαν", "Jan"),
    ("Φεβ", "Feb"),
    ("Μάώ", "Mar"),
    ("Μαώ", "Mar"),
    ("Μάρ", "Mar"),
    ("Μαρ", "Mar"),
    ("Απρ", "Apr"),
    ("Μάι", "May"),
    ("Μαϊ", "May"),
    ("Μαι", "May"),
    ("Ιούν", "Jun"),
    ("Ιον", "Jun"),
    ("Ιουν", "Jun"),
    ("Ιούλ", "Jul"),
    ("Ιολ", "Jul"),
    ("Ιουλ", "Jul"),
    ("Αύγ", "Aug"),
    ("Αυγ", "Aug"),
    ("Σεπ", "Sep"),
    ("Οκτ", "Oct"),
    ("Νοέ", "Nov"),
    ("Νοε", "Nov"),
    ("Δεκ", "Dec"),
];
