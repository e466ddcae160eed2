// Play clips in place; without script the links open the files.
const player = document.getElementById("player");
for (const link of document.querySelectorAll("a.play")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    player.querySelector("video").src = link.href;
    player.querySelector("p").textContent = link.dataset.caption || "";
    player.showModal();
    player.querySelector("video").play();
  });
}
player.addEventListener("click", (event) => { if (event.target === player) player.close(); });
player.addEventListener("close", () => player.querySelector("video").pause());
const zoom = document.getElementById("zoom");
if (zoom) {
  zoom.hidden = false;
  zoom.addEventListener("input", () => {
    document.querySelector(".zoom > div").style.width = 100 * 2 ** zoom.value + "%";
  });
}
