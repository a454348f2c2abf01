"""Which sites send visitors of which kind: search, social, video, ai, email.

A site is listed by its registrable domain, or by the label before the public suffix
where it has a domain per country (`google.de`, `google.co.uk`). Kept by hand from the
sites' own names, in the order of their kinds; extend it here, the tests say how much of
a public list it covers.
"""

_LABELS = {
    "search": """google bing yahoo duckduckgo yandex baidu ecosia qwant startpage ask aol naver seznam sogou dogpile
        lycos excite altavista webcrawler swisscows mojeek metager presearch searx searxng haosou daum rambler
        coccoc petalsearch gibiru lilo ekoru wolframalpha ixquick alltheweb gigablast""",
    "social": """facebook instagram linkedin twitter pinterest reddit tumblr quora xing vk weibo mastodon threads
        bluesky snapchat tiktok discord slashdot producthunt flickr meetup nextdoor medium hackernews viadeo mixi
        douban renren livejournal stackoverflow whatsapp telegram wechat""",
    "video": "youtube vimeo dailymotion twitch wistia bilibili rumble vidyard loom youku niconico rutube",
    "ai": "chatgpt openai claude anthropic perplexity gemini copilot deepseek grok mistral chatbot",
    "email": "gmail outlook hotmail mailchimp sendgrid",
}
_DOMAINS = {
    "search": "brave.com search.brave.com you.com kagi.com phind.com 360.cn zoho.com",
    "social": """t.co fb.com fb.me lnkd.in x.com bsky.app bsky.social t.me telegram.org wa.me ycombinator.com
        mastodon.social threads.net threads.com redd.it pin.it vk.com ok.ru""",
    "video": "youtu.be vimeo.com twitch.tv ted.com wistia.net",
    "ai": "chatgpt.com openai.com claude.ai perplexity.ai poe.com character.ai x.ai grok.com meta.ai mistral.ai pi.ai",
    "email": "mail.ru live.com proton.me protonmail.com gmx.net gmx.de web.de fastmail.com hey.com",
}
KIND_OF_LABEL = {name: kind for kind, names in _LABELS.items() for name in names.split()}
KIND_OF_DOMAIN = {name: kind for kind, names in _DOMAINS.items() for name in names.split()}


def referrer_kind(name: str) -> str | None:
    """The kind of a registrable domain or a plain source name; None when it is not listed."""
    return KIND_OF_DOMAIN.get(name) or KIND_OF_LABEL.get(name.partition(".")[0])
