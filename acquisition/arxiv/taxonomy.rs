//! The categories of arXiv: codes and names.
//!
//! Source: <https://arxiv.org/category_taxonomy>, and the archives that were folded into others.

/// A category.
#[derive(Debug, PartialEq, Eq)]
struct Category {
    /// `cs.LG`.
    code: &'static str,
    /// Name of the archive, which Dublin Core writes before that of the category; empty where there is none.
    archive: &'static str,
    /// `Machine Learning`.
    name: &'static str,
}

const fn category(code: &'static str, archive: &'static str, name: &'static str) -> Category {
    Category { code, archive, name }
}

/// The name of a category by its code.
pub(super) fn name_of(code: &str) -> Option<&'static str> {
    let place = CATEGORIES.binary_search_by_key(&code, |category| category.code).ok()?;
    Some(CATEGORIES[place].name)
}

/// Whether a term is the code of a category, also of one that is not yet known here; classes of mathematics start with a
/// digit, those of computing with a capital.
pub(super) fn is_code(term: &str) -> bool {
    term.starts_with(|first: char| first.is_ascii_lowercase())
}

/// The categories of a record of Dublin Core, and the subjects that name none. The sets of its header tell them, unless
/// one of the sets is wider than a category, as until 2025; then the names among the subjects do.
pub(super) fn categories_of(sets: &[String], subjects: Vec<String>) -> (Vec<String>, Vec<String>) {
    let by_set: Option<Vec<&str>> = sets.iter().map(|set| code_of_set(set)).collect();
    let has_full_name = subjects.iter().any(|subject| code_of_full_name(subject).is_some());
    let (mut by_name, mut others) = (Vec::new(), Vec::new());
    for subject in subjects {
        match code_of_full_name(&subject).or_else(|| code_of_name(&subject)) {
            Some(code) => by_name.push(code),
            None => others.push(subject),
        }
    }
    let codes = by_set.filter(|codes| !codes.is_empty() && !has_full_name).unwrap_or(by_name);
    (codes.into_iter().map(str::to_owned).collect(), others)
}

/// The category that is a set: `cs:cs:LG`, `physics:hep-th`.
/// Source: <https://github.com/arXiv/oaipmh/blob/develop/oaipmh/processors/create_set_list.py>.
fn code_of_set(set: &str) -> Option<&'static str> {
    let code = set.split_once(':')?.1.replace(':', ".");
    let place = CATEGORIES.binary_search_by_key(&code.as_str(), |category| category.code).ok()?;
    Some(CATEGORIES[place].code)
}

/// By its name after that of its archive: `Computer Science - Machine Learning`.
fn code_of_full_name(subject: &str) -> Option<&'static str> {
    let is_it = |category: &&Category| {
        let name = subject.strip_prefix(category.archive).and_then(|rest| rest.strip_prefix(" - "));
        !category.archive.is_empty() && name == Some(category.name)
    };
    let renamed = || RENAMED.iter().find(|(name, _)| *name == subject).map(|&(_, code)| code);
    CATEGORIES.iter().find(is_it).map(|category| category.code).or_else(renamed)
}

/// By its name alone: of several the first that is in use.
fn code_of_name(subject: &str) -> Option<&'static str> {
    let named = || CATEGORIES.iter().filter(|category| category.name == subject).map(|category| category.code);
    named().find(|code| !OUT_OF_USE.contains(code)).or_else(|| named().next())
}

/// Archives of before, whose names are now those of categories.
static OUT_OF_USE: &[&str] = &[
    "acc-phys", "adap-org", "alg-geom", "ao-sci", "atom-ph", "bayes-an", "chao-dyn", "chem-ph", "cmp-lg", "comp-gas",
    "dg-ga", "funct-an", "mtrl-th", "patt-sol", "plasm-ph", "q-alg", "solv-int", "supr-con",
];

/// Names that categories had before, under which records of that time were harvested.
static RENAMED: &[(&str, &str)] = &[
    ("Astrophysics - Cosmology and Extragalactic Astrophysics", "astro-ph.CO"),
    ("Astrophysics - Galaxy Astrophysics", "astro-ph.GA"),
    ("Computer Science - Learning", "cs.LG"),
    ("Mathematics - Statistics", "math.ST"),
    ("Quantitative Biology - Other", "q-bio.OT"),
    ("Statistics - Theory", "stat.TH"),
];

/// In the order of their codes.
#[rustfmt::skip]
static CATEGORIES: &[Category] = &[
    category("acc-phys", "", "Accelerator Physics"),
    category("adap-org", "", "Adaptation, Noise, and Self-Organizing Systems"),
    category("alg-geom", "", "Algebraic Geometry"),
    category("ao-sci", "", "Atmospheric-Oceanic Sciences"),
    category("astro-ph", "", "Astrophysics"),
    category("astro-ph.CO", "Astrophysics", "Cosmology and Nongalactic Astrophysics"),
    category("astro-ph.EP", "Astrophysics", "Earth and Planetary Astrophysics"),
    category("astro-ph.GA", "Astrophysics", "Astrophysics of Galaxies"),
    category("astro-ph.HE", "Astrophysics", "High Energy Astrophysical Phenomena"),
    category("astro-ph.IM", "Astrophysics", "Instrumentation and Methods for Astrophysics"),
    category("astro-ph.SR", "Astrophysics", "Solar and Stellar Astrophysics"),
    category("atom-ph", "", "Atomic, Molecular and Optical Physics"),
    category("bayes-an", "", "Bayesian Analysis"),
    category("chao-dyn", "", "Chaotic Dynamics"),
    category("chem-ph", "", "Chemical Physics"),
    category("cmp-lg", "", "Computation and Language"),
    category("comp-gas", "", "Cellular Automata and Lattice Gases"),
    category("cond-mat", "", "Condensed Matter"),
    category("cond-mat.dis-nn", "Condensed Matter", "Disordered Systems and Neural Networks"),
    category("cond-mat.mes-hall", "Condensed Matter", "Mesoscale and Nanoscale Physics"),
    category("cond-mat.mtrl-sci", "Condensed Matter", "Materials Science"),
    category("cond-mat.other", "Condensed Matter", "Other Condensed Matter"),
    category("cond-mat.quant-gas", "Condensed Matter", "Quantum Gases"),
    category("cond-mat.soft", "Condensed Matter", "Soft Condensed Matter"),
    category("cond-mat.stat-mech", "Condensed Matter", "Statistical Mechanics"),
    category("cond-mat.str-el", "Condensed Matter", "Strongly Correlated Electrons"),
    category("cond-mat.supr-con", "Condensed Matter", "Superconductivity"),
    category("cs.AI", "Computer Science", "Artificial Intelligence"),
    category("cs.AR", "Computer Science", "Hardware Architecture"),
    category("cs.CC", "Computer Science", "Computational Complexity"),
    category("cs.CE", "Computer Science", "Computational Engineering, Finance, and Science"),
    category("cs.CG", "Computer Science", "Computational Geometry"),
    category("cs.CL", "Computer Science", "Computation and Language"),
    category("cs.CR", "Computer Science", "Cryptography and Security"),
    category("cs.CV", "Computer Science", "Computer Vision and Pattern Recognition"),
    category("cs.CY", "Computer Science", "Computers and Society"),
    category("cs.DB", "Computer Science", "Databases"),
    category("cs.DC", "Computer Science", "Distributed, Parallel, and Cluster Computing"),
    category("cs.DL", "Computer Science", "Digital Libraries"),
    category("cs.DM", "Computer Science", "Discrete Mathematics"),
    category("cs.DS", "Computer Science", "Data Structures and Algorithms"),
    category("cs.ET", "Computer Science", "Emerging Technologies"),
    category("cs.FL", "Computer Science", "Formal Languages and Automata Theory"),
    category("cs.GL", "Computer Science", "General Literature"),
    category("cs.GR", "Computer Science", "Graphics"),
    category("cs.GT", "Computer Science", "Computer Science and Game Theory"),
    category("cs.HC", "Computer Science", "Human-Computer Interaction"),
    category("cs.IR", "Computer Science", "Information Retrieval"),
    category("cs.IT", "Computer Science", "Information Theory"),
    category("cs.LG", "Computer Science", "Machine Learning"),
    category("cs.LO", "Computer Science", "Logic in Computer Science"),
    category("cs.MA", "Computer Science", "Multiagent Systems"),
    category("cs.MM", "Computer Science", "Multimedia"),
    category("cs.MS", "Computer Science", "Mathematical Software"),
    category("cs.NA", "Computer Science", "Numerical Analysis"),
    category("cs.NE", "Computer Science", "Neural and Evolutionary Computing"),
    category("cs.NI", "Computer Science", "Networking and Internet Architecture"),
    category("cs.OH", "Computer Science", "Other Computer Science"),
    category("cs.OS", "Computer Science", "Operating Systems"),
    category("cs.PF", "Computer Science", "Performance"),
    category("cs.PL", "Computer Science", "Programming Languages"),
    category("cs.RO", "Computer Science", "Robotics"),
    category("cs.SC", "Computer Science", "Symbolic Computation"),
    category("cs.SD", "Computer Science", "Sound"),
    category("cs.SE", "Computer Science", "Software Engineering"),
    category("cs.SI", "Computer Science", "Social and Information Networks"),
    category("cs.SY", "Computer Science", "Systems and Control"),
    category("dg-ga", "", "Differential Geometry"),
    category("econ.EM", "Economics", "Econometrics"),
    category("econ.GN", "Economics", "General Economics"),
    category("econ.TH", "Economics", "Theoretical Economics"),
    category("eess.AS", "Electrical Engineering and Systems Science", "Audio and Speech Processing"),
    category("eess.IV", "Electrical Engineering and Systems Science", "Image and Video Processing"),
    category("eess.SP", "Electrical Engineering and Systems Science", "Signal Processing"),
    category("eess.SY", "Electrical Engineering and Systems Science", "Systems and Control"),
    category("funct-an", "", "Functional Analysis"),
    category("gr-qc", "", "General Relativity and Quantum Cosmology"),
    category("hep-ex", "", "High Energy Physics - Experiment"),
    category("hep-lat", "", "High Energy Physics - Lattice"),
    category("hep-ph", "", "High Energy Physics - Phenomenology"),
    category("hep-th", "", "High Energy Physics - Theory"),
    category("math-ph", "", "Mathematical Physics"),
    category("math.AC", "Mathematics", "Commutative Algebra"),
    category("math.AG", "Mathematics", "Algebraic Geometry"),
    category("math.AP", "Mathematics", "Analysis of PDEs"),
    category("math.AT", "Mathematics", "Algebraic Topology"),
    category("math.CA", "Mathematics", "Classical Analysis and ODEs"),
    category("math.CO", "Mathematics", "Combinatorics"),
    category("math.CT", "Mathematics", "Category Theory"),
    category("math.CV", "Mathematics", "Complex Variables"),
    category("math.DG", "Mathematics", "Differential Geometry"),
    category("math.DS", "Mathematics", "Dynamical Systems"),
    category("math.FA", "Mathematics", "Functional Analysis"),
    category("math.GM", "Mathematics", "General Mathematics"),
    category("math.GN", "Mathematics", "General Topology"),
    category("math.GR", "Mathematics", "Group Theory"),
    category("math.GT", "Mathematics", "Geometric Topology"),
    category("math.HO", "Mathematics", "History and Overview"),
    category("math.IT", "Mathematics", "Information Theory"),
    category("math.KT", "Mathematics", "K-Theory and Homology"),
    category("math.LO", "Mathematics", "Logic"),
    category("math.MG", "Mathematics", "Metric Geometry"),
    category("math.MP", "Mathematics", "Mathematical Physics"),
    category("math.NA", "Mathematics", "Numerical Analysis"),
    category("math.NT", "Mathematics", "Number Theory"),
    category("math.OA", "Mathematics", "Operator Algebras"),
    category("math.OC", "Mathematics", "Optimization and Control"),
    category("math.PR", "Mathematics", "Probability"),
    category("math.QA", "Mathematics", "Quantum Algebra"),
    category("math.RA", "Mathematics", "Rings and Algebras"),
    category("math.RT", "Mathematics", "Representation Theory"),
    category("math.SG", "Mathematics", "Symplectic Geometry"),
    category("math.SP", "Mathematics", "Spectral Theory"),
    category("math.ST", "Mathematics", "Statistics Theory"),
    category("mtrl-th", "", "Materials Theory"),
    category("nlin.AO", "Nonlinear Sciences", "Adaptation and Self-Organizing Systems"),
    category("nlin.CD", "Nonlinear Sciences", "Chaotic Dynamics"),
    category("nlin.CG", "Nonlinear Sciences", "Cellular Automata and Lattice Gases"),
    category("nlin.PS", "Nonlinear Sciences", "Pattern Formation and Solitons"),
    category("nlin.SI", "Nonlinear Sciences", "Exactly Solvable and Integrable Systems"),
    category("nucl-ex", "", "Nuclear Experiment"),
    category("nucl-th", "", "Nuclear Theory"),
    category("patt-sol", "", "Pattern Formation and Solitons"),
    category("physics.acc-ph", "Physics", "Accelerator Physics"),
    category("physics.ao-ph", "Physics", "Atmospheric and Oceanic Physics"),
    category("physics.app-ph", "Physics", "Applied Physics"),
    category("physics.atm-clus", "Physics", "Atomic and Molecular Clusters"),
    category("physics.atom-ph", "Physics", "Atomic Physics"),
    category("physics.bio-ph", "Physics", "Biological Physics"),
    category("physics.chem-ph", "Physics", "Chemical Physics"),
    category("physics.class-ph", "Physics", "Classical Physics"),
    category("physics.comp-ph", "Physics", "Computational Physics"),
    category("physics.data-an", "Physics", "Data Analysis, Statistics and Probability"),
    category("physics.ed-ph", "Physics", "Physics Education"),
    category("physics.flu-dyn", "Physics", "Fluid Dynamics"),
    category("physics.gen-ph", "Physics", "General Physics"),
    category("physics.geo-ph", "Physics", "Geophysics"),
    category("physics.hist-ph", "Physics", "History and Philosophy of Physics"),
    category("physics.ins-det", "Physics", "Instrumentation and Detectors"),
    category("physics.med-ph", "Physics", "Medical Physics"),
    category("physics.optics", "Physics", "Optics"),
    category("physics.plasm-ph", "Physics", "Plasma Physics"),
    category("physics.pop-ph", "Physics", "Popular Physics"),
    category("physics.soc-ph", "Physics", "Physics and Society"),
    category("physics.space-ph", "Physics", "Space Physics"),
    category("plasm-ph", "", "Plasma Physics"),
    category("q-alg", "", "Quantum Algebra and Topology"),
    category("q-bio", "", "Quantitative Biology"),
    category("q-bio.BM", "Quantitative Biology", "Biomolecules"),
    category("q-bio.CB", "Quantitative Biology", "Cell Behavior"),
    category("q-bio.GN", "Quantitative Biology", "Genomics"),
    category("q-bio.MN", "Quantitative Biology", "Molecular Networks"),
    category("q-bio.NC", "Quantitative Biology", "Neurons and Cognition"),
    category("q-bio.OT", "Quantitative Biology", "Other Quantitative Biology"),
    category("q-bio.PE", "Quantitative Biology", "Populations and Evolution"),
    category("q-bio.QM", "Quantitative Biology", "Quantitative Methods"),
    category("q-bio.SC", "Quantitative Biology", "Subcellular Processes"),
    category("q-bio.TO", "Quantitative Biology", "Tissues and Organs"),
    category("q-fin.CP", "Quantitative Finance", "Computational Finance"),
    category("q-fin.EC", "Quantitative Finance", "Economics"),
    category("q-fin.GN", "Quantitative Finance", "General Finance"),
    category("q-fin.MF", "Quantitative Finance", "Mathematical Finance"),
    category("q-fin.PM", "Quantitative Finance", "Portfolio Management"),
    category("q-fin.PR", "Quantitative Finance", "Pricing of Securities"),
    category("q-fin.RM", "Quantitative Finance", "Risk Management"),
    category("q-fin.ST", "Quantitative Finance", "Statistical Finance"),
    category("q-fin.TR", "Quantitative Finance", "Trading and Market Microstructure"),
    category("quant-ph", "", "Quantum Physics"),
    category("solv-int", "", "Exactly Solvable and Integrable Systems"),
    category("stat.AP", "Statistics", "Applications"),
    category("stat.CO", "Statistics", "Computation"),
    category("stat.ME", "Statistics", "Methodology"),
    category("stat.ML", "Statistics", "Machine Learning"),
    category("stat.OT", "Statistics", "Other Statistics"),
    category("stat.TH", "Statistics", "Statistics Theory"),
    category("supr-con", "", "Superconductivity"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order() {
        assert!(CATEGORIES.is_sorted_by(|one, next| one.code < next.code));
    }

    #[test]
    fn codes_and_names_lead_to_each_other() {
        assert_eq!(name_of("cs.LG"), Some("Machine Learning"));
        assert_eq!(name_of("cs.XX"), None);
        assert!(OUT_OF_USE.iter().all(|code| name_of(code).is_some()));
        for (subject, code) in [
            ("Computer Science - Machine Learning", Some("cs.LG")),
            ("Statistics - Machine Learning", Some("stat.ML")),
            ("High Energy Physics - Theory", Some("hep-th")),
            ("Astrophysics - Earth and Planetary Astrophysics", Some("astro-ph.EP")),
            ("Quantum Physics", Some("quant-ph")),
            ("Computation and Language", Some("cs.CL")),
            ("Machine Learning", Some("cs.LG")),
            ("Bayesian Analysis", Some("bayes-an")),
            ("Mathematics - Functional Analysis", Some("math.FA")),
            ("Astrophysics", Some("astro-ph")),
            ("03E75 (Primary), 03E35 (Secondary)", None),
        ] {
            assert_eq!(code_of_full_name(subject).or_else(|| code_of_name(subject)), code, "{subject}");
        }
    }
}
