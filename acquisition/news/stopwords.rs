//! Small words that say nothing of what a text is about, of the languages that most feeds are in. Chosen by us from
//! each language's articles, pronouns, prepositions, conjunctions, auxiliary verbs and commonest adverbs.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Whether a lower-case word is one of its language's; of a language that is not listed, or not known, English counts.
pub(super) fn is_stopword(word: &str, language: Option<&str>) -> bool {
    static SETS: LazyLock<Vec<(&str, HashSet<&str>)>> =
        LazyLock::new(|| STOPWORDS.iter().map(|(code, words)| (*code, words.split_whitespace().collect())).collect());
    let primary = language.and_then(|language| language.split('-').next()).unwrap_or("en");
    let listed = SETS.iter().find(|(code, _)| *code == primary).or(SETS.first());
    listed.is_some_and(|(_, words)| words.contains(word) || words.contains(word.replace('’', "'").as_str()))
}

const STOPWORDS: &[(&str, &str)] = &[
    (
        "en",
        "a about above after again against all also although am among an and another any are around as at away back be \
         because been before being below between both but by came can can't cannot come could couldn't did didn't do does \
         doesn't doing don't done down during each either else even ever every few first for from further get gets getting \
         give given go goes going gone got had hadn't has hasn't have haven't having he he's her here here's hers herself \
         him himself his how however i i'd i'll i'm i've if in into is isn't it it's its itself just keep last least less \
         let let's like made make makes making many may maybe me might more most much must my myself never new next no nor \
         not nothing now of off often on once one only onto or other others our ours out over own per put quite rather \
         really said same say says see seen several she she's should shouldn't since so some something still such take \
         taken than that that's the their theirs them themselves then there there's these they they're this those though \
         through thus to together too toward two under until up upon us use used uses using very via want was wasn't way we \
         we'll we're we've well went were weren't what what's when where whether which while who whom whose why will with \
         within without won't would wouldn't year years yes yet you you'll you're you've your yours yourself nbsp",
    ),
    (
        "de",
        "aber alle allem allen aller alles als also am an andere anderen auch auf aus bei beim bereits bin bis bist da dabei \
         dadurch dafür damit danach dann daran darauf darum das dass dazu dein dem den denn der des deshalb dessen die dies \
         diese diesem diesen dieser dieses doch dort du durch ein eine einem einen einer eines er erst es etwas euch euer \
         für gegen gibt hat hatte hatten habe haben hier hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im immer \
         in ins ist ja jede jedem jeden jeder jedes jetzt kann kein keine keinen können könnte mal man mehr mein meine mich \
         mir mit muss müssen nach neu neue neuen nicht nichts noch nun nur ob oder ohne schon sehr seien sein seine seinem \
         seinen seiner seit selbst sich sie sind so sogar soll sollen sollte sondern sowie über um und uns unser unter viel \
         viele vom von vor während war waren warum was weil weiter welche wenn wer werde werden wie wieder will wir wird \
         wirklich wo wurde wurden würde zu zum zur zwar zwei zwischen",
    ),
    (
        "fr",
        "a afin ai ainsi alors après au aucun aujourd'hui aussi autre autres aux avait avant avec avoir c'est car ce ceci \
         cela celle celui ces cet cette chaque chez comme comment dans de depuis des deux donc du elle elles en encore entre \
         est et étaient était été être eu eux fait faire fois font hors ici il ils j'ai je jusqu'à l la le les leur leurs \
         lors lui là ma mais même mêmes mes moi moins mon ne ni nos notre nous on ont ou où par parce pas pendant peu peut \
         plus plusieurs pour pourquoi qu'il qu'un qu'une quand que quel quelle quelles quels qui quoi sa sans se selon sera \
         ses si sien son sont sous sur ta tandis te tes toi ton tous tout toute toutes très tu un une vers voici voilà vos \
         votre vous y",
    ),
    (
        "es",
        "a al algo algunas algunos ante antes aquí así aunque años año cada como con contra cual cuando de del desde después \
         donde dos durante e el él ella ellas ellos en entre era eran es esa ese eso esta está estaba están este esto estos \
         fue fueron ha había han hasta hay la las le les lo los más me mientras mi mis muy más nada ni no nos nosotros o \
         otra otras otro otros para pero poco por porque puede pueden pues que qué quien quienes se según ser si sí sido \
         sin sino sobre son su sus también tan tanto te tiene tienen toda todas todo todos tras tu un una uno unos y ya yo",
    ),
    (
        "it",
        "a ad agli ai al alla alle allo anche ancora avere aveva c'è che chi ci ciò come con contro così cui da dai dal dalla \
         dalle degli dei del dell della delle dello di dopo dove due e ed è era erano essere fa fino fra fu già gli ha hanno \
         i il in io l la le lei lo loro lui ma mentre mi mio molto ne nei nel nella nelle no noi non nostro o ogni oggi \
         oltre per perché però più poi prima può qual quale quando quella quelli quello questa queste questi questo qui se \
         secondo sempre senza si sia sono sopra sua sul sulla suo suoi tra tutte tutti tutto un una uno vi",
    ),
    (
        "pt",
        "a à ainda além ano anos ao aos após as às até com como contra da das de dele depois desde do dois dos durante e é \
         ela elas ele eles em entre era essa esse esta está estão estava este eu foi foram há isso isto já lá lhe mais mas \
         me mesmo meu minha muito na não nas nem no nos nós num numa o onde os ou outra outras outro outros para pela pelas \
         pelo pelos por porque qual quando que quem se segundo sem ser será seu seus só sobre sua suas também tem têm ter \
         teve toda todas todo todos três tudo um uma você",
    ),
    (
        "nl",
        "aan al alle alleen als andere ben bij dan dat de deze die dit doen door dus een en er ga gaan geen had hadden hebben \
         heeft hem het hier hij hoe hun iets ik in is ja je jij kan kon kunnen laat maar meer men met mij mijn moet moeten na \
         naar niet niets nog nu of om omdat ons onze ook op over pas te tegen toch toen tot tussen twee u uit uw van veel \
         voor waar want waren was wat we wel welke werd werden wie wij wil worden wordt zal ze zei zelf zich zij zijn zo \
         zonder zou zullen",
    ),
    (
        "ru",
        "а без более больше был была были было быть в вам вас весь во вот все всё всего всех вы где да даже для до его ее её \
         если есть еще ещё же за здесь и из или им их к как какой когда который которая которое которые кто ли лишь между \
         меня мне много может можно мы на над надо нас не него нее ней нет ни них но ну о об однако он она они оно от очень \
         по под после потом потому почти при про раз с сам свой своей свои себя сейчас со так также такой там тем теперь то \
         того тоже только том ты у уже хотя чего чем что чтобы эта эти это этого этой этом этот я",
    ),
];
