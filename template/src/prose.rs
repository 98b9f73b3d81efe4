//! Removes what mentions an engine from text: names in an enumeration, sentences, list items, rows, sections.

use regex::{Captures, Regex};

/// The width of lines.
const WIDTH: usize = 120;

/// What is removed, and what remains.
pub(crate) struct Prose {
    removed: Regex,
    enumeration: Regex,
    name: Regex,
}

impl Prose {
    /// `removed` matches the names of removed engines, and `all` those of all engines.
    pub(crate) fn new(removed: &Regex, all: &str) -> Self {
        // A name with what belongs to it: `MySQL 8.0`, `SQLite 3 (included)`, `[PgBouncer](…)`, `"mysql"`.
        let word = format!(r"(?:{all})[\w:-]*");
        let named = format!(r#"(?:`{word}`|"{word}"|\[`?{word}`?\]\([^)]*\)|{word})"#);
        let name = format!(r"(?:{named}(?: \d+(?:\.\d+)*)?(?: \(included\))?)");
        let enumeration = format!(r"(?i){name}(?:(?:, ?(?:and |or )?| and | or |/){name})+");
        Self {
            removed: removed.clone(),
            enumeration: Regex::new(&enumeration).expect("the names are no patterns"),
            name: Regex::new(&format!("(?i){name}")).expect("the names are no patterns"),
        }
    }

    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.removed.is_match(text)
    }

    /// The text with shorter enumerations.
    pub(crate) fn enumerations(&self, text: &str) -> String {
        self.enumeration.replace_all(text, |found: &Captures<'_>| self.enumeration(&found[0])).into_owned()
    }

    /// The sentences of a paragraph that do not mention a removed engine.
    pub(crate) fn paragraph(&self, text: &str) -> String {
        let text = self.enumerations(text);
        // A line of links.
        if text.contains(" · ") {
            return text.split(" · ").filter(|link| !self.mentions(link)).collect::<Vec<_>>().join(" · ");
        }
        let sentences = sentences(&text);
        sentences.into_iter().filter(|sentence| !self.mentions(sentence)).collect::<String>().trim().to_owned()
    }

    fn enumeration(&self, text: &str) -> String {
        let names: Vec<_> = self.name.find_iter(text).map(|name| name.as_str()).collect();
        let kept: Vec<_> = names.iter().filter(|name| !self.mentions(name)).copied().collect();
        if !text.contains(' ') && text.contains(',') {
            return kept.join(",");
        }
        let conjunction = if text.contains(" or ") { " or " } else { " and " };
        match &kept[..] {
            [] => text.to_owned(),
            _ if kept.len() == names.len() => text.to_owned(),
            [one] => (*one).to_owned(),
            [others @ .., last] => others.join(", ") + conjunction + last,
        }
    }

    /// The comments of a source file without the sentences that mention a removed engine.
    pub(crate) fn comments(&self, text: &str, marker: &str) -> String {
        let prefix = Regex::new(&format!(r"^(\s*{marker}[/!]?) ?(.*)$")).expect("the marker is no pattern");
        let parse = |line: &str| prefix.captures(line).map(|found| (found[1].to_owned(), found[2].to_owned()));
        let lines: Vec<_> = text.lines().collect();
        let mut result = String::with_capacity(text.len());
        let mut position = 0;
        while position < lines.len() {
            let Some((start, _)) = parse(lines[position]).filter(|_| !lines[position].trim_start().starts_with("#!"))
            else {
                result.push_str(lines[position]);
                result.push('\n');
                position += 1;
                continue;
            };
            let mut block = Vec::new();
            while let Some((_, rest)) =
                lines.get(position).and_then(|line| parse(line)).filter(|(prefix, _)| *prefix == start)
            {
                block.push(rest);
                position += 1;
            }
            if self.mentions(&block.join("\n")) {
                block = self.document(&block.join("\n"), WIDTH - start.len() - 1).lines().map(str::to_owned).collect();
            }
            if block.iter().all(String::is_empty) {
                continue;
            }
            for line in block {
                result.push_str(format!("{start} {line}").trim_end());
                result.push('\n');
            }
        }
        result
    }

    /// A Markdown document without what mentions a removed engine.
    pub(crate) fn document(&self, text: &str, width: usize) -> String {
        let mut result: Vec<String> = Vec::new();
        let mut lines = text.lines().peekable();
        let mut dropped_level = None;
        while let Some(line) = lines.next() {
            if line.starts_with("```") {
                let mut block = vec![line.to_owned()];
                for line in lines.by_ref() {
                    block.push(line.to_owned());
                    if line.starts_with("```") {
                        break;
                    }
                }
                if dropped_level.is_none() {
                    self.code(&block, &mut result);
                }
                continue;
            }
            let level = line.chars().take_while(|c| *c == '#').count();
            if level > 0 && line[level..].starts_with(' ') {
                let heading = self.enumerations(line);
                if dropped_level.is_none_or(|dropped| level <= dropped) {
                    dropped_level = self.mentions(&heading).then_some(level);
                }
                if dropped_level.is_none() {
                    result.push(heading);
                }
                continue;
            }
            if dropped_level.is_some() {
                continue;
            }
            if line.trim().is_empty() || line.starts_with('|') || line.trim_start().starts_with("<!--") {
                if line.starts_with('|') && self.mentions(line) {
                    self.row(line, &mut result);
                } else {
                    result.push(line.to_owned());
                }
                continue;
            }
            // A paragraph or a list item, to the next blank line or item.
            let mut paragraph = vec![line.to_owned()];
            while let Some(next) = lines.peek() {
                let trimmed = next.trim_start();
                if trimmed.is_empty()
                    || ["```", "|", "#", "- ", "* ", "<"].iter().any(|start| trimmed.starts_with(start))
                    || is_numbered(trimmed)
                {
                    break;
                }
                paragraph.push(lines.next().expect("it was peeked").to_owned());
            }
            if !self.mentions(&paragraph.join(" ")) {
                result.extend(paragraph);
                continue;
            }
            let item =
                ["- ", "* "].iter().any(|start| line.trim_start().starts_with(start)) || is_numbered(line.trim_start());
            let indent = line.len() - line.trim_start().len();
            let hanging = if item { indent + line.trim_start().find(' ').map_or(0, |space| space + 1) } else { indent };
            let bullet = &line[..hanging];
            let text = paragraph.join("\n")[hanging..].split_whitespace().collect::<Vec<_>>().join(" ");
            let text = self.paragraph(&text);
            if !text.is_empty() {
                result.extend(wrap(bullet, hanging, &text, width));
            }
        }
        // One blank line for each run of them.
        let mut text = String::new();
        for line in result {
            if !(line.is_empty() && (text.ends_with("\n\n") || text.is_empty())) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        text.trim_end().to_owned() + "\n"
    }

    /// A row vanishes if its first cell mentions a removed engine, or if nothing remains of another cell.
    fn row(&self, line: &str, result: &mut Vec<String>) {
        let collapsed = self.enumerations(line);
        let old: Vec<_> = collapsed.trim_matches('|').split(" | ").collect();
        if self.mentions(old[0]) {
            return;
        }
        let cells: Vec<_> = old
            .iter()
            .map(|cell| if self.mentions(cell) { self.clauses(cell.trim()) } else { cell.trim().to_owned() })
            .collect();
        let is_lost = |(cell, old): (&String, &&str)| cell.is_empty() && !old.trim().is_empty();
        if !cells.iter().zip(&old).any(is_lost) {
            result.push(format!("| {} |", cells.join(" | ")).replace("|  |", "| |"));
        }
    }

    /// The parts between semicolons or commas that do not mention a removed engine.
    fn clauses(&self, text: &str) -> String {
        for separator in ["; ", ", "] {
            let kept: Vec<_> = text.split(separator).filter(|part| !self.mentions(part)).collect();
            if !kept.is_empty() {
                return kept.join(separator);
            }
        }
        String::new()
    }

    /// A block of code without the lines that mention a removed engine, and without the comments above these.
    fn code(&self, block: &[String], result: &mut Vec<String>) {
        // The numbers of a diff count its lines. A command continues after a backslash.
        let commands = block.split_inclusive(|line| !line.ends_with('\\'));
        let is_kept = |command: &&[String]| block[0] == "```diff" || !command.iter().any(|line| self.mentions(line));
        let kept: Vec<_> = commands.filter(is_kept).flatten().cloned().collect();
        if kept.len() > 2 || kept.len() == block.len() {
            result.extend(kept);
        }
    }
}

fn is_numbered(line: &str) -> bool {
    line.split_once(". ")
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The sentences, each with the space after it.
fn sentences(text: &str) -> Vec<String> {
    let mut result = Vec::new();
    let mut start = 0;
    for (position, _) in text.match_indices(". ") {
        let next = text[position + 2..].chars().next();
        let is_end = next.is_some_and(|next| next.is_uppercase() || "`[*\"(".contains(next))
            && !text[..position].ends_with("e.g");
        if is_end {
            result.push(text[start..position + 2].to_owned());
            start = position + 2;
        }
    }
    result.push(text[start..].to_owned());
    result
}

fn wrap(bullet: &str, hanging: usize, text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![bullet.to_owned()];
    let mut is_first_word = true;
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line");
        if !is_first_word && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(" ".repeat(hanging) + word);
        } else {
            if !is_first_word {
                line.push(' ');
            }
            line.push_str(word);
        }
        is_first_word = false;
    }
    lines
}
