//! The parts from which requests are put together; `prompt` says how.
//!
//! An entry that stands twice is drawn twice as often. Tables of words are laid out by hand,
//! because one word a line makes them unreadable.

#[rustfmt::skip]
pub(super) const OPENINGS: [&str; 14] = [
    "please ", "can you ", "could you ", "could you please ", "can you please ", "would you ",
    "kindly ", "hi, ", "hello! please ", "now ", "i want you to ", "i would like you to ",
    "you are a poet. ", "your task is to ",
];
#[rustfmt::skip]
pub(super) const VERBS: [&str; 28] = [
    "write", "write me", "compose", "create", "make", "make me", "give me", "generate", "produce",
    "craft", "draft", "share", "tell me", "show me", "send me", "invent", "think of",
    "come up with", "i need", "i want", "i'd like", "i would like", "let me have", "write", "write",
    "compose", "write up", "provide",
];
#[rustfmt::skip]
pub(super) const POEMS: [&str; 22] = [
    "a haiku", "a haiku", "a haiku", "a short haiku", "one haiku", "haiku", "a haiku poem",
    "a three-line haiku", "a 5-7-5 haiku", "a simple haiku", "a nice haiku", "a poem",
    "a short poem", "a little haiku", "a japanese haiku", "an english haiku", "a tiny poem",
    "a poem of three lines", "three lines", "a three line poem", "a quick haiku",
    "a beautiful haiku",
];
#[rustfmt::skip]
pub(super) const CONNECTORS: [&str; 26] = [
    "that includes", "that includes", "which includes", "including", "that contains",
    "which contains", "containing", "with", "using", "that uses", "featuring", "that features",
    "that mentions", "mentioning", "that has", "having", "that must include", "and include",
    "and use", "that must contain", "and mention", "that must use", "where one line has",
    "with a line that has", "built around", "which uses",
];
pub(super) const ABOUTS: [&str; 8] =
    ["about", "about", "about", "on", "on the subject of", "for", "on the theme of", "inspired by"];
#[rustfmt::skip]
pub(super) const SUBJECTS: [&str; 18] = [
    "GPU computing", "computers", "the weather", "nature", "love", "time", "a quiet day",
    "an old friend", "coming home", "machines", "the changing seasons", "work", "learning to wait",
    "my dog", "being alive", "a long road", "open source software", "nothing at all",
];
pub(super) const QUOTES: [(&str, &str); 13] = [
    ("\"", "\""),
    ("\"", "\""),
    ("\"", "\""),
    ("'", "'"),
    ("'", "'"),
    ("\u{201c}", "\u{201d}"),
    ("`", "`"),
    ("*", "*"),
    ("**", "**"),
    ("(", ")"),
    (": ", ""),
    (": \"", "\""),
    ("<", ">"),
];
#[rustfmt::skip]
pub(super) const TAILS: [&str; 28] = [
    ".", ".", ".", ".", "!", "?", " please", " please.", ", please", ", please.", " in it",
    " in it.", " somewhere in it.", " in three lines.", " in one of its lines.", ". keep it short.",
    ". thanks!", ", thanks", " exactly as written.", " verbatim.", ". thank you.", " for me",
    " for me.", " today", ". return only the haiku.", ". three lines only.",
    ". answer with the haiku only.", " and nothing else.",
];
/// Requests that are not built from the parts above; `{W}` is the asked phrase.
#[rustfmt::skip]
pub(super) const WHOLE: [&str; 48] = [
    "what about a haiku, {W} in it", "{W}, as a haiku", "a poem where {W} appears",
    "one haiku, {W} included", "haiku for {W}", "show {W} in three lines",
    "find a place for {W} in a haiku", "haiku challenge: {W}", "today's word: {W}. write the haiku",
    "my teacher asked for a haiku with {W} in it", "{W} must be in the haiku",
    "the haiku needs {W}", "can you fit {W} in a haiku", "see if you can use {W} in a haiku",
    "a haiku, and {W} should be part of it", "i was told to use {W} in my haiku",
    "make sure {W} is in the haiku", "a small poem, it must have {W} in it",
    "i would love a haiku with {W}", "my word is {W}, so write a haiku with it",
    "{W} is {N} for a haiku", "a haiku that has {W}", "make it a haiku about {W}",
    "the topic is {W}. haiku please", "haiku please, with {W}", "can {W} be in a haiku",
    "let {W} appear in a haiku", "write about {W} in haiku form", "three lines about {W}",
    "poem: {W}", "take {W} and make a haiku of it", "what would a haiku with {W} look like",
    "use {N} {W} in a haiku", "{N} is {W}. write a haiku with it", "haiku: {W}", "haiku {W}", "{W}",
    "{W} haiku", "{W}: a haiku please", "haiku about {W}", "a haiku about {W}",
    "a haiku with {N} {W}", "haiku with {W}", "the haiku must contain {N} {W}",
    "include {N} {W} in your haiku", "turn {W} into a haiku",
    "i want to read a haiku with {W} in it", "include {W} in a haiku",
];
/// Sentences around the request that ask for nothing; `{F}` is some noun.
#[rustfmt::skip]
pub(super) const FILLERS: [&str; 16] = [
    "it is late.", "i saw a {F} today.", "the {F} is old.", "we talked about the {F}.",
    "my {F} is here.", "i like the {F}.", "good morning.", "be brief.", "no title.",
    "use simple english.", "do not explain.", "there is a {F} near the {F}.", "this is a test.",
    "today i am tired.", "follow the 5-7-5 form.", "it should be calm.",
];
/// Words that are never asked for.
#[rustfmt::skip]
pub(super) const EVERYDAY: [&str; 268] = [
    "and", "then", "just", "some", "any", "really", "so", "very", "also", "quite", "here", "there",
    "now", "again", "maybe", "kind", "sort", "of", "the", "a", "my", "your", "our", "their", "this",
    "that", "will", "should", "would", "may", "must", "it", "its", "as", "at", "by", "from", "over",
    "like", "such", "only", "please", "thanks", "today", "soon", "small", "good", "new", "old",
    "fun", "lovely", "poetry", "lines", "line", "text", "writing", "poet", "thing", "try", "see",
    "say", "hear", "read", "get", "take", "do", "does", "want", "need", "know", "where", "when",
    "how", "what", "who", "for", "me", "you", "all", "one-line", "first", "last", "best", "every",
    "about", "after", "always", "answer", "anything", "asked", "back", "be", "because", "been",
    "before", "being", "between", "bit", "bring", "call", "certain", "come", "complete", "contain",
    "could", "create", "creative", "did", "different", "down", "each", "easy", "either", "else",
    "end", "english", "even", "exactly", "example", "few", "find", "finish", "follow", "form",
    "friend", "full", "gentle", "give", "going", "got", "great", "had", "happy", "has", "have",
    "hello", "help", "her", "him", "his", "hope", "idea", "if", "included", "into", "kids", "later",
    "least", "left", "let", "little", "long", "look", "lot", "made", "make", "many", "matter",
    "mean", "mention", "might", "more", "most", "much", "never", "next", "nice", "nobody", "normal",
    "not", "nothing", "often", "ok", "okay", "once", "other", "out", "own", "part", "perfect",
    "piece", "place", "plain", "possible", "pretty", "produce", "proper", "put", "quick", "quickly",
    "rather", "ready", "real", "right", "same", "seen", "send", "sense", "share", "shape", "short",
    "show", "shown", "shows", "simple", "since", "single", "someone", "something", "sound",
    "special", "start", "still", "suggest", "sure", "talk", "tell", "than", "them", "these", "they",
    "thought", "through", "told", "too", "turn", "type", "under", "until", "up", "upon", "use",
    "used", "using", "usual", "version", "wants", "was", "way", "welcome", "were", "which", "while",
    "whole", "why", "wish", "without", "wonder", "wonderful", "worked", "works", "yet", "somehow",
    "tonight", "tomorrow", "together", "original", "class", "teacher", "prompt", "challenge",
    "contest", "task", "entry", "result", "output", "response", "reply",
];
