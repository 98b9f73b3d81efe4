//! Removes what mentions an engine from Rust sources: the smallest item, statement, arm or element that does.
//!
//! The sources are cut, not printed anew, so that everything else keeps its comments.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use regex::Regex;

/// The methods that add tests to a list. Such a call is removed when its engines are.
const LINKS: [&str; 2] = ["on", "with_tool"];

/// The message of a panic where an engine has no server.
pub(crate) const NO_SERVER: &str = "it has no server";

/// What is used of a trait that is imported without its name.
const METHODS: [(&str, &[&str]); 10] = [
    ("BufRead", &["lines", "read_line", "read_until"]),
    ("CommandExt", &["exec", "gid", "pre_exec", "process_group", "uid"]),
    ("Engine", &["decode", "encode"]),
    ("Executor", &["execute", "fetch_all", "fetch_one", "fetch_optional"]),
    ("MetadataExt", &["gid", "uid"]),
    ("PermissionsExt", &["from_mode", "mode", "set_mode"]),
    ("Read", &["read", "read_exact", "read_to_end", "read_to_string"]),
    ("Resource", &["TABLE"]),
    ("Row", &["get", "get_unchecked", "try_get", "try_get_unchecked"]),
    ("Write", &["flush", "write_all", "write_fmt", "write!", "writeln!"]),
];

/// One source file.
pub(crate) struct Source {
    pub(crate) text: String,
    /// The names in what was removed. They may be unused now.
    pub(crate) removed: HashSet<String>,
}

impl Source {
    pub(crate) fn new(text: String) -> Self {
        Self { text, removed: HashSet::new() }
    }

    /// Removes what mentions a word.
    pub(crate) fn remove(&mut self, words: &Regex) -> Result<()> {
        loop {
            let before = self.text.len();
            self.cut(|tokens, cuts| Visitor { is_word: &|word| words.is_match(word), cuts }.conditions(tokens))?;
            if self.text.len() == before {
                break;
            }
        }
        self.cut(|tokens, cuts| _ = Visitor { is_word: &|word| words.is_match(word), cuts }.visit(tokens, None))
    }

    /// Removes each function that mentions a word, and the other items that do so outside of lists. Returns their names,
    /// and whether they are public.
    pub(crate) fn remove_mentioning(&mut self, words: &Regex) -> Result<Vec<(String, bool)>> {
        let mut names = Vec::new();
        self.cut(|tokens, cuts| {
            let visitor = Visitor { is_word: &|word| words.is_match(word), cuts: &mut Vec::new() };
            mentioning(tokens, None, &visitor, &mut names, cuts);
        })?;
        Ok(names)
    }

    /// Removes the private items at the top of the file, with their methods, that neither it nor `others` mention.
    pub(crate) fn remove_private(&mut self, others: &HashSet<String>) -> Result<()> {
        self.cut(|tokens, cuts| {
            let definition = |element: &[TokenTree]| {
                let words = words(element);
                let kind =
                    words.iter().position(|word| ["const", "enum", "fn", "impl", "struct"].contains(&&**word))?;
                // `impl Drop for Name`
                let kind = words.iter().position(|word| word == "for").unwrap_or(kind);
                (words[0] != "pub").then(|| words.get(kind + 1).cloned()).flatten()
            };
            let elements: Vec<_> = ranges(tokens, None).collect();
            for (element, whole) in &elements {
                let Some(name) = definition(element) else { continue };
                let is_used = |(other, _): &(&[TokenTree], _)| {
                    definition(other).as_ref() != Some(&name) && names(other).contains(&name)
                };
                if !others.contains(&name) && !elements.iter().any(is_used) {
                    cuts.push(Cut { range: whole.clone(), replacement: String::new() });
                }
            }
        })
    }

    /// Removes imports of names that this file does not use.
    pub(crate) fn remove_imports(&mut self, candidates: &HashSet<String>) -> Result<()> {
        let tokens = tokens(&self.text)?;
        let (names, mut called) = (names(&tokens), Vec::new());
        methods(&tokens, &mut called);
        let count = |names: &[String], name: &str| names.iter().filter(|other| *other == name).count();
        let is_unused = |name: &str| candidates.contains(name) && count(&names, name) - count(&called, name) == 1;
        let has_method = |name: &str| {
            let methods = METHODS.iter().find(|(found, _)| *found == name).map(|(_, methods)| *methods);
            let is_used = |method: &&str| called.iter().any(|name| name == method);
            let is_path = |method: &&str| called.contains(&format!("::{method}"));
            methods.is_none_or(|methods| methods.iter().any(|method| is_used(method) || is_path(method)))
        };
        self.cut(|tokens, cuts| imports(tokens, &Unused { is_unused: &is_unused, has_method: &has_method }, cuts))
    }

    /// Removes the variables that nothing reads.
    pub(crate) fn remove_variables(&mut self, candidates: &HashSet<String>) -> Result<()> {
        self.cut(|tokens, cuts| variables(tokens, candidates, cuts))
    }

    /// Removes the items and methods of these names.
    pub(crate) fn remove_items(&mut self, unused: &HashSet<String>) -> Result<()> {
        self.cut(|tokens, cuts| items(tokens, None, unused, cuts))
    }

    /// Each name in the file, as often as it occurs.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        Ok(names(&tokens(&self.text)?))
    }

    fn cut(&mut self, find: impl FnOnce(&[TokenTree], &mut Vec<Cut>)) -> Result<()> {
        let tokens = tokens(&self.text)?;
        let mut cuts = Vec::new();
        find(&tokens, &mut cuts);
        cuts.sort_by_key(|cut| cut.range.start);
        let mut end = self.text.len();
        for cut in cuts.into_iter().rev() {
            if cut.range.end > end {
                continue;
            }
            if cut.replacement.is_empty() {
                let part = &self.text[cut.range.clone()];
                self.removed.extend(names(&self::tokens(part).unwrap_or_default()));
            }
            end = cut.range.start;
            self.text.replace_range(cut.range, &cut.replacement);
        }
        // rustfmt cannot format lines of white space.
        self.text = self.text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n";
        Ok(())
    }
}

struct Cut {
    range: Range<usize>,
    replacement: String,
}

/// The tokens of a file without its comments, at their places in it.
fn tokens(text: &str) -> Result<Vec<TokenTree>> {
    let mut blank = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("//") {
            blank.extend(line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            blank.push_str(line);
        }
    }
    let stream: TokenStream = blank.parse().map_err(|error| anyhow!("not Rust: {error}"))?;
    Ok(stream.into_iter().collect())
}

fn names(tokens: &[TokenTree]) -> Vec<String> {
    tokens
        .iter()
        .flat_map(|token| match token {
            TokenTree::Ident(name) => vec![name.to_string()],
            TokenTree::Group(group) => names(&group.stream().into_iter().collect::<Vec<_>>()),
            TokenTree::Literal(literal) => formatted(&literal.to_string()),
            TokenTree::Punct(_) => vec![],
        })
        .collect()
}

/// The methods and macros that are called, the fields, and `::name` of the names after a type, each as often as it occurs.
fn methods(tokens: &[TokenTree], found: &mut Vec<String>) {
    for pair in tokens.windows(2) {
        match pair {
            [sign, TokenTree::Ident(name)] if is(sign, '.') => found.push(name.to_string()),
            [TokenTree::Ident(name), sign] if is(sign, '!') => found.push(format!("{name}!")),
            _ => {}
        }
    }
    for path in tokens.windows(4) {
        if let [TokenTree::Ident(kind), colon, _, TokenTree::Ident(name)] = path
            && is(colon, ':')
            && kind.to_string().starts_with(char::is_uppercase)
        {
            found.push(format!("::{name}"));
        }
    }
    groups(tokens).for_each(|group| methods(&group.stream().into_iter().collect::<Vec<_>>(), found));
}

/// The names in a format string, `{name}`, and at the beginning of a path in an attribute, `"name::<4>"`.
fn formatted(literal: &str) -> Vec<String> {
    let parts = literal.trim_start_matches('"').split('{').enumerate();
    let parts = parts.filter(|(position, part)| *position > 0 || part.contains("::<")).map(|(_, part)| part);
    let names = parts.map(|part| part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
    names.filter(|name| name.starts_with(|c: char| c.is_alphabetic() || c == '_')).collect()
}

fn groups(tokens: &[TokenTree]) -> impl Iterator<Item = &proc_macro2::Group> {
    tokens.iter().filter_map(|token| match token {
        TokenTree::Group(group) => Some(group),
        _ => None,
    })
}

fn start(token: &TokenTree) -> usize {
    token.span().byte_range().start
}

fn end(token: &TokenTree) -> usize {
    token.span().byte_range().end
}

fn is(token: &TokenTree, punctuation: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == punctuation)
}

fn words(tokens: &[TokenTree]) -> Vec<String> {
    tokens
        .iter()
        .filter_map(|token| match token {
            TokenTree::Ident(word) => Some(word.to_string()),
            _ => None,
        })
        .collect()
}

/// The items, statements, arms or elements of a sequence, each with the separator after it.
fn elements(tokens: &[TokenTree]) -> impl Iterator<Item = &[TokenTree]> {
    let mut rest = tokens;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (element, after) = rest.split_at(length(rest));
        rest = after;
        Some(element)
    })
}

/// The number of tokens of the first element.
fn length(tokens: &[TokenTree]) -> usize {
    let is_item = is_item(tokens);
    let mut generics = 0;
    for (position, token) in tokens.iter().enumerate() {
        let next = tokens.get(position + 1);
        // rustfmt writes a space before `<` only where it compares.
        if position > 0 && is(token, '<') && end(&tokens[position - 1]) == start(token) {
            generics += 1;
        } else if generics > 0 && is(token, '>') && !is(&tokens[position - 1], '-') && !is(&tokens[position - 1], '=') {
            generics -= 1;
        }
        let continues = next.is_some_and(|next| {
            ",;.?=|&+-*/<>".chars().any(|sign| is(next, sign))
                || matches!(next, TokenTree::Ident(word) if word == "else" || word == "as")
                || matches!(next, TokenTree::Group(group) if group.delimiter() != Delimiter::Brace)
        });
        let is_block = matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        if is(token, ';') || is(token, ',') && !is_item && generics == 0 || is_block && !continues {
            return position + 1;
        }
    }
    tokens.len()
}

/// Whether the tokens begin with an item or a `let`, which no comma ends.
fn is_item(tokens: &[TokenTree]) -> bool {
    let mut rest = tokens;
    loop {
        rest = match rest {
            [sign, TokenTree::Group(_), after @ ..] if is(sign, '#') => after,
            [TokenTree::Ident(word), TokenTree::Group(group), after @ ..]
                if word == "pub" && group.delimiter() == Delimiter::Parenthesis =>
            {
                after
            }
            [TokenTree::Ident(word), after @ ..] if word == "pub" || word == "async" || word == "unsafe" => after,
            [TokenTree::Ident(word), ..] => {
                let word = word.to_string();
                return ["const", "enum", "fn", "impl", "let", "mod", "static", "struct", "trait", "type", "use"]
                    .contains(&&*word);
            }
            _ => return false,
        }
    }
}

struct Visitor<'v> {
    is_word: &'v dyn Fn(&str) -> bool,
    cuts: &'v mut Vec<Cut>,
}

impl Visitor<'_> {
    /// Whether the tokens contain a word.
    fn mentions(&self, tokens: &[TokenTree]) -> bool {
        self.calls(tokens)
            || tokens.iter().any(|token| match token {
                TokenTree::Ident(word) => (self.is_word)(&word.to_string()),
                TokenTree::Literal(literal) => (self.is_word)(&literal.to_string()),
                TokenTree::Group(group) => self.mentions(&group.stream().into_iter().collect::<Vec<_>>()),
                TokenTree::Punct(_) => false,
            })
    }

    /// Whether the tokens call a macro `name!` or a function `name(` that is a word in this form.
    fn calls(&self, tokens: &[TokenTree]) -> bool {
        tokens.windows(2).enumerate().any(|(position, pair)| match pair {
            [TokenTree::Ident(name), sign] if is(sign, '!') => (self.is_word)(&format!("{name}!")),
            [TokenTree::Ident(name), TokenTree::Group(group)] if group.delimiter() == Delimiter::Parenthesis => {
                // Neither a method nor a function of another module.
                let is_free = position == 0 || ![".", ":", "fn"].contains(&&*tokens[position - 1].to_string());
                is_free && (self.is_word)(&format!("{name}("))
            }
            _ => false,
        })
    }

    /// The same as [`Self::mentions`], outside of braces and brackets.
    fn names(&self, tokens: &[TokenTree]) -> bool {
        self.calls(tokens)
            || tokens.iter().any(|token| match token {
                TokenTree::Group(group) if group.delimiter() != Delimiter::Parenthesis => false,
                TokenTree::Group(group) => self.names(&group.stream().into_iter().collect::<Vec<_>>()),
                other => self.mentions(std::slice::from_ref(other)),
            })
    }

    /// Removes the elements that mention a word. Returns how many remain.
    fn visit(&mut self, tokens: &[TokenTree], from: Option<usize>) -> usize {
        let mut remaining = 0;
        for (element, whole) in ranges(tokens, from) {
            if !self.mentions(element) || !self.element(element, whole) {
                remaining += 1;
            }
        }
        remaining
    }

    /// Removes what mentions a word from one element. Returns whether that is the whole element.
    fn element(&mut self, element: &[TokenTree], whole: Range<usize>) -> bool {
        if let Some(arrow) = arrow(element) {
            let (pattern, body) = element.split_at(arrow);
            if self.mentions(pattern) {
                let guard = pattern.iter().position(|token| matches!(token, TokenTree::Ident(word) if word == "if"));
                let alternatives: Vec<_> = pattern[..guard.unwrap_or(arrow)].split(|token| is(token, '|')).collect();
                if guard.is_some_and(|guard| self.mentions(&pattern[guard..]))
                    || alternatives.iter().all(|part| self.mentions(part))
                {
                    return self.remove(whole);
                }
                self.alternatives(&alternatives);
            }
            self.inside(&body[2..]);
            return false;
        }
        let links = element.windows(3).enumerate().filter(|(_, window)| {
            is(&window[0], '.')
                && matches!((&window[1], &window[2]), (TokenTree::Ident(name), TokenTree::Group(arguments))
                    if LINKS.contains(&&*name.to_string()) || arguments.to_string().starts_with("(tests !"))
        });
        let links: Vec<_> = links.map(|(position, _)| position).collect();
        for &position in &links {
            let TokenTree::Group(arguments) = &element[position + 2] else { continue };
            let arguments: Vec<_> = arguments.stream().into_iter().collect();
            let is_of_engines = LINKS.contains(&&*element[position + 1].to_string());
            if is_of_engines && self.names(&arguments) || self.empties_a_list(&arguments) {
                self.remove(start(&element[position])..end(&element[position + 2]));
            } else {
                self.inside(&arguments);
            }
        }
        if !links.is_empty() {
            for (position, token) in element.iter().enumerate() {
                if !links.iter().any(|link| position == link + 2) {
                    self.inside(std::slice::from_ref(token));
                }
            }
            return false;
        }
        let is_loop = matches!(&element[0], TokenTree::Ident(word) if word == "for");
        if self.names(element)
            || self.loses_its_value(element)
            || self.needs_a_server(element)
            || is_loop && self.empties_a_list(element)
        {
            return self.remove(whole);
        }
        let is_import = words(element).contains(&"use".to_owned());
        if self.inside(element) == 0 && is_import {
            return self.remove(whole);
        }
        false
    }

    /// Whether the element is a function whose value mentions a word.
    fn loses_its_value(&self, element: &[TokenTree]) -> bool {
        let returns = element.windows(2).any(|pair| is(&pair[0], '-') && is(&pair[1], '>'));
        let Some(TokenTree::Group(body)) =
            element.last().filter(|_| returns && words(element).contains(&"fn".to_owned()))
        else {
            return false;
        };
        let body: Vec<_> = body.stream().into_iter().collect();
        let Some(value) = elements(&body).last() else { return false };
        let is_list =
            value.iter().any(|token| matches!(token, TokenTree::Ident(name) if LINKS.contains(&&*name.to_string())));
        !is_list && self.names(value) && !is(&value[value.len() - 1], ';') && arrow(value).is_none()
    }

    /// Whether the element is a function that panics without a server, and there is none.
    fn needs_a_server(&self, element: &[TokenTree]) -> bool {
        words(element).contains(&"fn".to_owned())
            && (self.is_word)(NO_SERVER)
            && element.iter().any(|token| token.to_string().contains(NO_SERVER))
    }

    /// Whether all elements of a list in brackets mention a word.
    fn empties_a_list(&self, tokens: &[TokenTree]) -> bool {
        groups(tokens).filter(|group| group.delimiter() == Delimiter::Bracket).any(|list| {
            let list: Vec<_> = list.stream().into_iter().collect();
            !list.is_empty() && elements(&list).all(|element| self.mentions(element))
        })
    }

    /// Visits braces and brackets. Returns how many elements remain in the last of them.
    fn inside(&mut self, tokens: &[TokenTree]) -> usize {
        let mut remaining = 1;
        for (position, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            let inner: Vec<_> = group.stream().into_iter().collect();
            if !self.mentions(&inner) {
                continue;
            }
            match group.delimiter() {
                // An attribute is no list.
                Delimiter::Bracket if position > 0 && is(&tokens[position - 1], '#') => {}
                Delimiter::Brace | Delimiter::Bracket => {
                    let before = elements(&inner).count();
                    remaining = self.visit(&inner, Some(group.span_open().byte_range().end));
                    self.length(&tokens[..position], before, remaining);
                }
                Delimiter::Parenthesis | Delimiter::None => {
                    self.inside(&inner);
                }
            }
        }
        remaining
    }

    /// Corrects the length in the type of an array: `: [T; 3] =`.
    fn length(&mut self, before: &[TokenTree], old: usize, new: usize) {
        let Some(array) = groups(before).filter(|group| group.delimiter() == Delimiter::Bracket).last() else { return };
        let array: Vec<_> = array.stream().into_iter().collect();
        if let [.., semicolon, length] = &array[..]
            && is(semicolon, ';')
            && length.to_string() == old.to_string()
            && old != new
        {
            self.cuts.push(Cut { range: start(length)..end(length), replacement: new.to_string() });
        }
    }

    /// Removes alternatives of a pattern, each with the bar before or after it.
    fn alternatives(&mut self, alternatives: &[&[TokenTree]]) {
        let kept: Vec<_> = alternatives.iter().filter(|part| !self.mentions(part)).collect();
        let (Some(first), Some(last)) = (alternatives.first(), alternatives.last()) else { return };
        let range = start(&first[0])..end(&last[last.len() - 1]);
        let text = kept.iter().map(|part| {
            part.iter().cloned().collect::<TokenStream>().to_string().replace(" :: ", "::").replace(" (", "(")
        });
        self.cuts.push(Cut { range, replacement: text.collect::<Vec<_>>().join(" | ") });
    }

    /// Resolves each `if` that compares with a word: `==` is false, and `!=` is true.
    fn conditions(&mut self, tokens: &[TokenTree]) {
        for (position, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(word)
                    if word == "if"
                        && self
                            .condition(&tokens[position..], position.checked_sub(1).map(|before| &tokens[before])) =>
                {
                    return;
                }
                TokenTree::Group(group) if self.mentions(std::slice::from_ref(token)) => {
                    self.conditions(&group.stream().into_iter().collect::<Vec<_>>());
                }
                _ => {}
            }
        }
    }

    fn condition(&mut self, tokens: &[TokenTree], before: Option<&TokenTree>) -> bool {
        let is_block =
            |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        let Some(block) = tokens.iter().position(is_block) else { return false };
        let condition = &tokens[1..block];
        // `x == "sqlite"`, or `x.starts_with("sqlite")`.
        let begins = matches!(condition, [.., TokenTree::Ident(call), TokenTree::Group(_)] if call == "starts_with")
            && !is(&condition[0], '!');
        let compares = |first: char| {
            begins && first == '=' || condition.windows(2).any(|pair| is(&pair[0], first) && is(&pair[1], '='))
        };
        if !self.mentions(condition) || arrow(condition).is_some() || compares('=') == compares('!') {
            return false;
        }
        let other = match tokens.get(block + 1..) {
            Some([TokenTree::Ident(word), other, ..]) if word == "else" && is_block(other) => Some(other),
            // `else if` is resolved on its own.
            Some([TokenTree::Ident(word), ..]) if word == "else" && compares('=') => {
                self.remove(start(&tokens[0])..end(&tokens[block + 1]));
                return true;
            }
            _ => None,
        };
        let last = other.unwrap_or(&tokens[block]);
        let whole = start(&tokens[0])..end(last);
        let kept = if compares('!') { Some(&tokens[block]) } else { other };
        let Some(TokenTree::Group(kept)) = kept else {
            // The comments before a statement are about it.
            let from = before.filter(|token| is(token, ';') || is_block(token)).map_or(whole.start, end);
            return self.remove(from..whole.end);
        };
        let inner: Vec<_> = kept.stream().into_iter().collect();
        let is_statement = before.is_none_or(|token| is(token, ';') || is_block(token));
        let (from, to) = match (inner.first(), inner.last()) {
            (Some(first), Some(last)) if is_statement || !inner.iter().any(|token| is(token, ';')) => {
                (start(first), end(last))
            }
            _ => (kept.span().byte_range().start, kept.span().byte_range().end),
        };
        self.remove(whole.start..from);
        self.remove(to..whole.end);
        true
    }

    fn remove(&mut self, range: Range<usize>) -> bool {
        self.cuts.push(Cut { range, replacement: String::new() });
        true
    }
}

/// The position of `=>` in a match arm.
fn arrow(element: &[TokenTree]) -> Option<usize> {
    element.windows(2).position(|pair| is(&pair[0], '=') && is(&pair[1], '>'))
}

/// Which imports are unused.
struct Unused<'u> {
    is_unused: &'u dyn Fn(&str) -> bool,
    has_method: &'u dyn Fn(&str) -> bool,
}

/// Finds the imports of unused names, in all scopes.
fn imports(tokens: &[TokenTree], unused: &Unused<'_>, cuts: &mut Vec<Cut>) {
    for (element, whole) in ranges(tokens, None) {
        match element {
            [TokenTree::Ident(word), import @ ..] if word == "use" => {
                if unused.tree(import, &[], cuts) {
                    cuts.push(Cut { range: whole, replacement: String::new() });
                }
            }
            // Other files use what is exported again.
            [TokenTree::Ident(word), ..]
                if word == "pub"
                    && words(element).contains(&"use".to_owned())
                    && !words(element).contains(&"fn".to_owned()) => {}
            _ => {
                groups(element).for_each(|group| imports(&group.stream().into_iter().collect::<Vec<_>>(), unused, cuts))
            }
        }
    }
}

impl Unused<'_> {
    /// Whether an import has no used name. If it has some, finds the unused ones.
    fn tree(&self, tokens: &[TokenTree], module: &[String], cuts: &mut Vec<Cut>) -> bool {
        let path = [module, &words(tokens)].concat();
        let Some(group) = groups(tokens).next() else {
            return match &path[..] {
                _ if tokens.iter().any(|token| is(token, '*')) => false,
                [.., name, alias, discarded] if alias == "as" && discarded == "_" => {
                    !["crate", "super"].contains(&&*path[0]) && !(self.has_method)(name)
                }
                [.., module, only] if only == "self" => (self.is_unused)(module),
                [.., name] => !["super", "crate"].contains(&&**name) && (self.is_unused)(name),
                [] => false,
            };
        };
        let inner: Vec<_> = group.stream().into_iter().collect();
        let mut found = Vec::new();
        let mut count = 0;
        let mut whole_ones = 0;
        for (element, whole) in ranges(&inner, None) {
            count += 1;
            if self.tree(element, &path, &mut found) {
                whole_ones += 1;
                found.push(Cut { range: whole, replacement: String::new() });
            }
        }
        if whole_ones == count {
            return true;
        }
        cuts.append(&mut found);
        false
    }
}

/// Finds `let` statements of one name that occurs nowhere else in its function.
fn variables(tokens: &[TokenTree], candidates: &HashSet<String>, cuts: &mut Vec<Cut>) {
    let names = names(tokens);
    for (element, whole) in ranges(tokens, None) {
        let name = match element {
            [TokenTree::Ident(word), TokenTree::Ident(mutable), TokenTree::Ident(name), next, ..]
                if word == "let" && mutable == "mut" && (is(next, '=') || is(next, ':')) =>
            {
                Some(name)
            }
            [TokenTree::Ident(word), TokenTree::Ident(name), next, ..] if word == "let" && is(next, '=') => Some(name),
            _ => None,
        };
        let name = name.map(ToString::to_string);
        if name.is_some_and(|name| {
            !name.starts_with('_')
                && candidates.contains(&name)
                && names.iter().filter(|other| **other == name).count() == 1
        }) {
            cuts.push(Cut { range: whole, replacement: String::new() });
        } else {
            groups(element)
                .for_each(|group| variables(&group.stream().into_iter().collect::<Vec<_>>(), candidates, cuts));
        }
    }
}

/// The elements with their ranges in the text, each with the white space and the comments before it. The first begins at
/// `from`, or at its first token.
fn ranges(tokens: &[TokenTree], from: Option<usize>) -> impl Iterator<Item = (&[TokenTree], Range<usize>)> {
    let mut before = from.or_else(|| tokens.first().map(start)).unwrap_or(0);
    elements(tokens).map(move |element| {
        let whole = before..end(element.last().expect("an element is not empty"));
        before = whole.end;
        (element, whole)
    })
}

/// Finds the functions that mention a word, and the other items that do so outside of lists.
fn mentioning(
    tokens: &[TokenTree],
    from: Option<usize>,
    visitor: &Visitor<'_>,
    names: &mut Vec<(String, bool)>,
    cuts: &mut Vec<Cut>,
) {
    for (element, whole) in ranges(tokens, from) {
        let words = words(element);
        let position = words.iter().position(|word| ["const", "fn", "macro_rules", "static"].contains(&&**word));
        let is_found = match position.map(|position| &*words[position]) {
            // The list of tests only becomes shorter.
            Some("fn") => !words.contains(&"tests".to_owned()) && visitor.mentions(element),
            Some("macro_rules") => visitor.mentions(element),
            Some(_) => visitor.names(element),
            None => false,
        };
        if let (true, Some(name)) = (is_found, position.and_then(|position| words.get(position + 1))) {
            let is_macro = words[0] == "macro_rules";
            names.push((if is_macro { format!("{name}!") } else { name.clone() }, is_macro || words[0] == "pub"));
            cuts.push(Cut { range: whole, replacement: String::new() });
        } else if words.iter().any(|word| word == "impl" || word == "mod") {
            for group in groups(element).filter(|group| group.delimiter() == Delimiter::Brace) {
                let inner: Vec<_> = group.stream().into_iter().collect();
                mentioning(&inner, Some(group.span_open().byte_range().end), visitor, names, cuts);
            }
        }
    }
}

fn items(tokens: &[TokenTree], from: Option<usize>, unused: &HashSet<String>, cuts: &mut Vec<Cut>) {
    for (element, whole) in ranges(tokens, from) {
        let words = words(element);
        let keyword = words
            .iter()
            .position(|word| ["fn", "const", "static", "struct", "enum", "mod", "macro_rules"].contains(&&**word));
        match keyword.and_then(|position| {
            words[position..].iter().find(|word| {
                !["fn", "const", "static", "struct", "enum", "mod", "macro_rules", "mut"].contains(&&***word)
            })
        }) {
            Some(name) if unused.contains(name) => cuts.push(Cut { range: whole, replacement: String::new() }),
            _ if words.iter().any(|word| ["impl", "mod", "trait"].contains(&&**word)) => {
                for group in groups(element).filter(|group| group.delimiter() == Delimiter::Brace) {
                    items(
                        &group.stream().into_iter().collect::<Vec<_>>(),
                        Some(group.span_open().byte_range().end),
                        unused,
                        cuts,
                    );
                }
            }
            _ => {}
        }
    }
}
