//! Removes what mentions an engine from files of lines: YAML by its indentation, and scripts by arms and words.

use regex::Regex;

use crate::prose::Prose;

/// YAML and TOML without the entries and tables whose first line mentions a word.
pub(crate) fn indented(text: &str, words: &Regex) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut result: Vec<&str> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with('#') || !words.is_match(line) {
            result.push(line);
            continue;
        }
        let level = indent(line);
        let is_table = line.starts_with('[');
        while let Some(next) = lines.peek() {
            let is_part =
                if is_table { !next.starts_with('[') } else { !next.trim().is_empty() && indent(next) > level };
            if !is_part {
                break;
            }
            lines.next();
        }
        // The comment above it.
        while result.last().is_some_and(|last| last.trim_start().starts_with('#') && indent(last) == level) {
            result.pop();
        }
    }
    result.join("\n") + "\n"
}

/// A script without the arms of `case`, the functions, the words of a list and the plain lines that mention a word.
pub(crate) fn script(text: &str, words: &Regex, prose: &Prose) -> String {
    let list = Regex::new(r#"^(\s*(?:for \w+ in |\w+=\(|\w+\+=\())([^;)]*)(.*)$"#).expect("it is a pattern");
    let arm = Regex::new(r"^\s*\(?([\w|*-]+)\)").expect("it is a pattern");
    let function = Regex::new(r"^(\s*)\w+\(\) \{").expect("it is a pattern");
    let mut result = Vec::new();
    let text: Vec<_> = text
        .lines()
        .map(|line| if words.is_match(line) { prose.enumerations(line) } else { line.to_owned() })
        .collect();
    let mut lines = text.iter().map(String::as_str);
    while let Some(line) = lines.next() {
        if !words.is_match(line) {
            result.push(line.to_owned());
            continue;
        }
        if let Some(found) = arm.captures(line)
            && found[1].split('|').all(|pattern| words.is_match(pattern))
        {
            let mut line = line;
            while !line.trim_end().ends_with(";;") {
                let Some(next) = lines.next() else { break };
                line = next;
            }
            continue;
        }
        if let Some(found) = function.captures(line) {
            let end = format!("{}}}", &found[1]);
            let is_one_line = line.trim_end().ends_with('}');
            let _ = is_one_line || lines.by_ref().any(|line| line == end);
            continue;
        }
        if let Some(found) = list.captures(line) {
            let kept: Vec<_> = found[2].split_whitespace().filter(|word| !words.is_match(word)).collect();
            if !kept.is_empty() && !words.is_match(&found[3]) {
                result.push(format!("{}{}{}", &found[1], kept.join(" "), &found[3]));
                continue;
            }
        }
        if let Some(line) = by_comma(line, words) {
            result.push(line);
        }
    }
    result.join("\n") + "\n"
}

/// A line without the names in its lists: `a,b,c`.
fn by_comma(line: &str, words: &Regex) -> Option<String> {
    let list = Regex::new(r"[\w-]+(?:,[\w-]+)+").expect("it is a pattern");
    let line = list.replace_all(line, |found: &regex::Captures<'_>| {
        found[0].split(',').filter(|name| !words.is_match(name)).collect::<Vec<_>>().join(",")
    });
    (!words.is_match(&line)).then(|| line.into_owned())
}
