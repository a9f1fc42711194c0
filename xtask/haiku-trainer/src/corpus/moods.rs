//! The vocabulary of the grammar: twelve scenes, each with words sorted by syllables.
//!
//! Every adjective starts with a consonant and every verb is in the third person, so that any
//! pattern can take any word of the right kind.

/// Words that belong together. The digit is the number of syllables.
#[derive(Debug)]
pub(super) struct Mood {
    pub(super) a1: &'static [&'static str],
    pub(super) a2: &'static [&'static str],
    pub(super) n1: &'static [&'static str],
    pub(super) n2: &'static [&'static str],
    /// Where something can be, after "in the".
    pub(super) l1: &'static [&'static str],
    pub(super) v1: &'static [&'static str],
    pub(super) v2: &'static [&'static str],
    /// Plural nouns, which follow a number.
    pub(super) p1: &'static [&'static str],
    pub(super) p2: &'static [&'static str],
}

/// The twelve scenes.
pub(super) const MOODS: [Mood; 12] = [
    Mood {
        // rain
        a1: &["soft", "grey", "cool", "wet"],
        a2: &["gentle", "patient", "distant", "silver"],
        n1: &["rain", "roof", "street", "mist"],
        n2: &["gutter", "puddle", "doorstep", "evening"],
        l1: &["rain", "mist", "street", "dusk"],
        v1: &["falls", "drips", "waits", "hums"],
        v2: &["whispers", "gathers", "lingers", "listens"],
        p1: &["drops", "leaves", "clouds", "stones"],
        p2: &["raindrops", "rooftops", "puddles", "doorways"],
    },
    Mood {
        // snow
        a1: &["white", "cold", "hushed", "bare"],
        a2: &["frozen", "quiet", "silent", "winter"],
        n1: &["snow", "frost", "field", "pine"],
        n2: &["winter", "snowfall", "hillside", "footprint"],
        l1: &["snow", "frost", "field", "cold"],
        v1: &["falls", "sleeps", "rests", "glows"],
        v2: &["settles", "lingers", "glitters", "whitens"],
        p1: &["flakes", "pines", "hills", "tracks"],
        p2: &["snowflakes", "footprints", "branches", "winters"],
    },
    Mood {
        // sea
        a1: &["blue", "salt", "wide", "bright"],
        a2: &["restless", "rolling", "salty", "drifting"],
        n1: &["sea", "wave", "tide", "foam"],
        n2: &["ocean", "seashell", "shoreline", "current"],
        l1: &["sea", "tide", "foam", "bay"],
        v1: &["turns", "breaks", "sings", "drifts"],
        v2: &["rises", "murmurs", "returns", "wanders"],
        p1: &["waves", "gulls", "shells", "ships"],
        p2: &["seabirds", "sailboats", "breakers", "seashells"],
    },
    Mood {
        // mountain
        a1: &["high", "steep", "grey", "still"],
        a2: &["lofty", "rocky", "misty", "lonely"],
        n1: &["peak", "stone", "cloud", "path"],
        n2: &["mountain", "valley", "summit", "boulder"],
        l1: &["mist", "clouds", "wind", "heights"],
        v1: &["stands", "waits", "looms", "climbs"],
        v2: &["listens", "watches", "remains", "wanders"],
        p1: &["peaks", "stones", "goats", "steps"],
        p2: &["mountains", "boulders", "valleys", "pilgrims"],
    },
    Mood {
        // forest
        a1: &["green", "deep", "dark", "mossed"],
        a2: &["mossy", "shaded", "tangled", "leafy"],
        n1: &["moss", "fern", "oak", "shade"],
        n2: &["forest", "birdsong", "hollow", "thicket"],
        l1: &["shade", "moss", "woods", "ferns"],
        v1: &["breathes", "sways", "creaks", "grows"],
        v2: &["rustles", "listens", "trembles", "deepens"],
        p1: &["oaks", "ferns", "wrens", "roots"],
        p2: &["shadows", "branches", "mushrooms", "squirrels"],
    },
    Mood {
        // garden in spring
        a1: &["fresh", "pink", "warm", "sweet"],
        a2: &["tender", "budding", "rosy", "fragrant"],
        n1: &["bud", "bee", "rose", "hedge"],
        n2: &["garden", "blossom", "petal", "springtime"],
        l1: &["sun", "hedge", "shade", "breeze"],
        v1: &["wakes", "blooms", "hums", "drifts"],
        v2: &["opens", "flutters", "scatters", "brightens"],
        p1: &["buds", "bees", "blooms", "vines"],
        p2: &["blossoms", "petals", "tulips", "flowers"],
    },
    Mood {
        // night
        a1: &["pale", "dark", "still", "bright"],
        a2: &["moonlit", "silver", "sleepless", "starry"],
        n1: &["moon", "star", "night", "dream"],
        n2: &["moonlight", "midnight", "shadow", "starlight"],
        l1: &["night", "dark", "calm", "dusk"],
        v1: &["glows", "waits", "shines", "dreams"],
        v2: &["shimmers", "lingers", "glimmers", "watches"],
        p1: &["stars", "moths", "bells", "dreams"],
        p2: &["moonbeams", "shadows", "midnights", "bonfires"],
    },
    Mood {
        // autumn
        a1: &["gold", "red", "ripe", "dry"],
        a2: &["golden", "russet", "fallen", "brittle"],
        n1: &["leaf", "wind", "frost", "smoke"],
        n2: &["autumn", "bonfire", "haystack", "maple"],
        l1: &["wind", "smoke", "grove", "chill"],
        v1: &["falls", "spins", "fades", "drifts"],
        v2: &["scatters", "wanders", "crackles", "tumbles"],
        p1: &["leaves", "geese", "pears", "crows"],
        p2: &["acorns", "apples", "maples", "chestnuts"],
    },
    Mood {
        // river
        a1: &["clear", "slow", "cool", "deep"],
        a2: &["winding", "shallow", "gentle", "reedy"],
        n1: &["stream", "reed", "bank", "fish"],
        n2: &["river", "ripple", "heron", "water"],
        l1: &["stream", "reeds", "shade", "mist"],
        v1: &["flows", "bends", "runs", "glides"],
        v2: &["wanders", "ripples", "carries", "murmurs"],
        p1: &["fish", "reeds", "boats", "frogs"],
        p2: &["ripples", "herons", "otters", "willows"],
    },
    Mood {
        // morning
        a1: &["new", "gold", "pale", "warm"],
        a2: &["tender", "waking", "dewy", "rising"],
        n1: &["dawn", "sun", "light", "dew"],
        n2: &["morning", "sunrise", "rooster", "daylight"],
        l1: &["dawn", "light", "dew", "sun"],
        v1: &["wakes", "spreads", "climbs", "sings"],
        v2: &["stretches", "brightens", "opens", "lingers"],
        p1: &["birds", "larks", "beams", "doors"],
        p2: &["sunbeams", "swallows", "mornings", "roosters"],
    },
    Mood {
        // summer meadow
        a1: &["tall", "lush", "warm", "green"],
        a2: &["sunny", "drowsy", "grassy", "lazy"],
        n1: &["grass", "field", "breeze", "sky"],
        n2: &["meadow", "summer", "clover", "daisy"],
        l1: &["grass", "field", "sun", "breeze"],
        v1: &["hums", "bends", "sways", "naps"],
        v2: &["flutters", "ripples", "dances", "drowses"],
        p1: &["larks", "kites", "bees", "lambs"],
        p2: &["daisies", "poppies", "grasses", "meadows"],
    },
    Mood {
        // town
        a1: &["dim", "late", "lit", "hushed"],
        a2: &["quiet", "vacant", "sleepy", "narrow"],
        n1: &["lamp", "train", "street", "clock"],
        n2: &["station", "alley", "doorway", "city"],
        l1: &["street", "dark", "rain", "park"],
        v1: &["sleeps", "hums", "waits", "glows"],
        v2: &["flickers", "passes", "lingers", "rumbles"],
        p1: &["lights", "trains", "steps", "cats"],
        p2: &["strangers", "footsteps", "taxis", "alleys"],
    },
];
